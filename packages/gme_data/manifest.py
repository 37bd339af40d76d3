"""The manifest of a step's output: its files, their sha256, and what they were made of; checked before each use."""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, StringConstraints

from gme_data.digests import sha256_file, sha256_json
from gme_data.errors import FoundryError
from gme_data.file_digests import FileVersion, digest_known, file_digest, file_version, is_stable
from gme_data.journal import atomic_write
from gme_data.paths import BelowPath
from gme_data.structured import StructureError, read_json

NAME = "_manifest.json"
SCHEMA_VERSION = 1
_MAX_BYTES = 2**30
"""The largest manifest that is read; one of millions of files has hundreds of megabytes."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an output; `path` is relative to its folder, `rows` is None for what is no table."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    path: BelowPath
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
        content: Digest of `files`; equal content has an equal digest, whichever step made it.
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


# Manifests by the version of their file: every reader of a part of an output checks the manifest again.
_PARSED: dict[FileVersion, Manifest] = {}
_MAX_PARSED = 16
_MAX_SHOWN = 5


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """Lists every file below `folder` but the manifest, sorted by path. Hidden files are scratch, not output."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return tuple(
        FileEntry(name, sha256_file(path), path.stat().st_size, _row_count(path))
        for name, path in sorted(paths.items(), key=lambda pair: pair[1])
        if name != NAME and "/." not in f"/{name}"
    )


def content_digest(files: tuple[FileEntry, ...]) -> str:
    """Returns the digest of names and bytes of the files."""
    return sha256_json([[entry.path, entry.sha256] for entry in files])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``_manifest.json`` completely or not at all; it is on disk when the call returns."""
    text = json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write(folder / NAME, text.encode())


def read_manifest(folder: Path) -> Manifest | None:
    """Returns the manifest of an output; None if the output is not there or was never finished.

    Raises:
        FoundryError: It is there but unreadable.
    """
    path = folder / NAME
    hint = f"Delete {folder} and run the step again."
    try:
        version = file_version(path)
        if version in _PARSED:
            return _PARSED[version]
        manifest = read_json(path, Manifest, max_bytes=_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except StructureError as error:
        raise FoundryError(f"Unreadable manifest: {error}", hint=hint) from error
    if manifest.content != content_digest(manifest.files):
        raise FoundryError(f"Unreadable manifest: {path}: its digest is not that of its files.", hint=hint)
    # A file that may change within a tick of the clock could get another content under the same version.
    if is_stable(version):
        _PARSED[version] = manifest
        if len(_PARSED) > _MAX_PARSED:
            del _PARSED[next(iter(_PARSED))]
    return manifest


def damage(folder: Path, manifest: Manifest) -> list[str]:
    """Returns a line for each file that is missing, changed, or not named by the manifest; none if all is well."""
    return [*_changes(folder, manifest, across_runs=False), *strays(folder, manifest)]


def strays(folder: Path, manifest: Manifest) -> list[str]:
    """Returns a line for each file in a folder that its manifest does not name.

    Hidden files are scratch: neither named nor read.
    """
    named = {entry.path for entry in manifest.files}
    lines = unnamed(folder, named)
    # A file system that ignores case or the form of accents would open one of two such names for the other.
    spellings: dict[str, str] = {}
    for name in sorted(named):
        other = spellings.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        lines += [f"{name}: another spelling of {other}"] if other != name else []
        lines += [f"{name}: hidden, and so no part of an output"] if f"/{name}".count("/.") else []
    return lines


def unnamed(folder: Path, named: Set[str]) -> list[str]:
    """Returns a line for each link, and for each file that is not among `named`; hidden files are ignored."""
    if not folder.is_dir():
        return []
    return [
        f"{path}: {'a link' if is_link else 'not named by the manifest'}"
        for path, is_link in _visible_files(folder)
        if is_link or path not in named
    ]


def require(folder: Path, made_by: str, *, across_runs: bool = False) -> Manifest:
    """Returns the manifest of a complete, undamaged output that holds nothing else.

    Args:
        folder: The output.
        made_by: The command that makes it.
        across_runs: Whether a digest that an earlier run computed may be taken; see `gme_data.file_digests`.

    Raises:
        FoundryError: The output is missing or damaged; names the step that makes it. A file lies in it that the
            manifest does not name.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise FoundryError(
            f"Missing input: {folder} has not been made.", hint=f"Run `gme {made_by}` first, or `gme pipeline`."
        )
    problems = _changes(folder, manifest, across_runs=across_runs)
    if problems:
        raise FoundryError(
            f"Damaged input in {folder}: {'; '.join(problems[:_MAX_SHOWN])}", hint=f"Run `gme {made_by}` to rebuild it."
        )
    require_no_strays(folder, manifest)
    return manifest


def require_no_strays(folder: Path, manifest: Manifest) -> None:
    """Refuses an output that holds files which its manifest does not name.

    Raises:
        FoundryError: See `strays`; names the first of them.
    """
    lines = strays(folder, manifest)
    if lines:
        raise FoundryError(
            f"{folder} holds what its manifest does not name: {'; '.join(lines[:_MAX_SHOWN])}",
            hint="Move it elsewhere, or delete it: an output is read by its manifest, and by nothing else.",
        )


def _changes(folder: Path, manifest: Manifest, *, across_runs: bool) -> list[str]:
    return [
        f"{entry.path}: {problem}"
        for entry in manifest.files
        if (problem := _problem(f"{folder}/{entry.path}", entry, across_runs=across_runs))
    ]


def _problem(path: str, entry: FileEntry, *, across_runs: bool) -> str | None:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if not stat.S_ISREG(status.st_mode):
        return "no regular file"
    # The size is compared first, since it costs no read of the file.
    if status.st_size != entry.bytes:
        return f"{status.st_size} bytes, expected {entry.bytes}"
    digest = digest_known(status) or file_digest(Path(path), across_runs=across_runs)
    return None if digest == entry.sha256 else "content changed"


def _visible_files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yields the path of each visible file below a folder but the manifest, and whether it is a link."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{below}{entry.name}"
                if entry.name.startswith(".") or path == NAME:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                else:
                    yield path, entry.is_symlink()


def _row_count(path: Path) -> int | None:
    return int(pq.ParquetFile(path).metadata.num_rows) if path.suffix == ".parquet" else None
