"""The manifest: what a step made, from what, checked by sha256 before anyone uses it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

import pyarrow.parquet as pq
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from gme_data.digests import sha256_file, sha256_json
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.structured import StructureError, read_json

NAME = "_manifest.json"
SCHEMA_VERSION = 1
_MAX_BYTES = 2**30
"""A manifest of millions of files has hundreds of megabytes."""


def _inside(path: str) -> str:
    """A manifest may come from elsewhere: what it names is below its own folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path or PurePosixPath(path).as_posix() != path:
        raise ValueError(f"{path!r} is no path below the folder")
    return path


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an output; `path` is relative to its folder, `rows` is None for what is no table."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    path: Annotated[str, AfterValidator(_inside)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)] | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A finished output.

    Attributes:
        key: Digest of all that the output depends on; see `gme_data.steps`.
        code: Digest of the source behind the step.
        inputs: Content digests of the inputs by name.
        content: Digest of `files`: equal content, equal digest, whoever made it.
        counts: What the step counts (examples, tokens, ...).
        seconds: Wall time of the run that finished it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: str
    key: str
    config: dict[str, Any]
    code: str
    inputs: dict[str, str]
    files: tuple[FileEntry, ...]
    content: str
    counts: dict[str, float]
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """Entries of every file below `folder` but the manifest, sorted by path. Hidden files are scratch, not output."""
    paths = sorted(
        p for p in folder.rglob("*") if p.is_file() and p.name != NAME and not _hidden(p.relative_to(folder))
    )
    return tuple(FileEntry(p.relative_to(folder).as_posix(), sha256_file(p), p.stat().st_size, _rows(p)) for p in paths)


def content_digest(files: tuple[FileEntry, ...]) -> str:
    """Digest of names and bytes of the files."""
    return sha256_json([[entry.path, entry.sha256] for entry in files])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``_manifest.json`` so that it is there whole or not at all, and on disk when the call returns."""
    text = json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write(folder / NAME, text.encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an output; None if the output is not there or was never finished.

    Raises:
        FoundryError: It is there but unreadable.
    """
    path = folder / NAME
    try:
        manifest = read_json(path, Manifest, max_bytes=_MAX_BYTES)
    except FileNotFoundError:
        return None
    except StructureError as error:
        raise FoundryError(f"Unreadable manifest: {error}", hint=f"Delete {folder} and run the step again.") from error
    if manifest.content != content_digest(manifest.files):
        raise FoundryError(
            f"Unreadable manifest: {path}: its digest is not that of its files.",
            hint=f"Delete {folder} and run the step again.",
        )
    return manifest


def damage(folder: Path, manifest: Manifest) -> list[str]:
    """What differs between the files on disk and the manifest, one line a file; empty if nothing does."""
    problems = []
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            problems.append(f"{entry.path}: missing")
        elif path.stat().st_size != entry.bytes:
            problems.append(f"{entry.path}: {path.stat().st_size} bytes, expected {entry.bytes}")
        elif sha256_file(path) != entry.sha256:
            problems.append(f"{entry.path}: content changed")
    return problems


def require(folder: Path, made_by: str) -> Manifest:
    """The manifest of a whole, undamaged output.

    Raises:
        FoundryError: The output is missing or damaged; names the step that makes it.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise FoundryError(
            f"Missing input: {folder} has not been made.", hint=f"Run `gme {made_by}` first, or `gme pipeline`."
        )
    problems = damage(folder, manifest)
    if problems:
        raise FoundryError(
            f"Damaged input in {folder}: {'; '.join(problems[:5])}", hint=f"Run `gme {made_by}` to rebuild it."
        )
    return manifest


def _rows(path: Path) -> int | None:
    return int(pq.ParquetFile(path).metadata.num_rows) if path.suffix == ".parquet" else None


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
