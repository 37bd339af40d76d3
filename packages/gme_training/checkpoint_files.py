"""The manifest of a checkpoint: its files, their content, and how far the run was. It is written last.

It has a digest of itself, since a digit of it that flipped would be a valid number. Knows files and digests; no engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from gme_data.digests import sha256_file, sha256_json
from gme_data.journal import atomic_write, fsync_tree
from gme_data.structured import StructureError, read_json

MANIFEST = "MANIFEST.json"
_TAG = re.compile(r"phase(\d{2,})-step(\d{6,})")
"""The name of a checkpoint's folder, as `ResumePoint.tag` writes it."""
FileDigest = tuple[Annotated[int, Field(ge=0)], Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
"""The size and the sha256 of a file."""


@dataclass(frozen=True, slots=True, order=True)
class ResumePoint:
    """How far a run is: `step` steps of phase `phase` are done; phases are counted from 0."""

    phase: Annotated[int, Field(ge=0)]
    step: Annotated[int, Field(ge=0)]

    @property
    def tag(self) -> str:
        """The name of its folder."""
        return f"phase{self.phase:02d}-step{self.step:06d}"


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """The content of ``MANIFEST.json``.

    Attributes:
        point: How far the run was.
        ranks: The number of processes that wrote the checkpoint.
        trained: The names of the trained parameters.
        files: The size and digest of each file, by its path below the folder.
        digest: The digest of all other fields.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    point: ResumePoint
    ranks: Annotated[int, Field(ge=1)]
    trained: tuple[str, ...]
    files: dict[str, FileDigest]
    digest: str


def write_manifest(folder: Path, point: ResumePoint, ranks: int, trained: list[str]) -> None:
    """Writes the manifest of a checkpoint, which makes it complete."""
    # Before the manifest: after a power failure it must not name files that never reached the disk.
    fsync_tree(folder)
    fields = {
        "point": asdict(point),
        "ranks": ranks,
        "trained": trained,
        "files": {name: [path.stat().st_size, sha256_file(path)] for name, path in _files(folder)},
    }
    atomic_write(folder / MANIFEST, json.dumps({**fields, "digest": sha256_json(fields)}).encode())


def read_manifest(folder: Path) -> CheckpointManifest:
    """Reads the manifest of a checkpoint.

    Raises:
        FileNotFoundError: The checkpoint was never finished.
        StructureError: The manifest is damaged, or is not that of this folder.
    """
    path = folder / MANIFEST
    manifest = read_json(path, CheckpointManifest)
    fields = asdict(manifest)
    if fields.pop("digest") != sha256_json(fields):
        raise StructureError(str(path), "its digest is not that of what it says")
    if manifest.point.tag != folder.name:
        raise StructureError(str(path), f"it is the manifest of {manifest.point.tag}")
    return manifest


def find_damage(folder: Path, manifest: CheckpointManifest) -> str | None:
    """Returns what differs between a checkpoint and its manifest; None if nothing does."""
    try:
        paths = dict(_files(folder))
        for name, (size, digest) in manifest.files.items():
            path = paths.pop(name, None)
            if path is None or path.stat().st_size != size or sha256_file(path) != digest:
                return f"{name} is damaged or missing"
    except OSError as error:
        return f"it can't be read: {error}"
    # DeepSpeed loads every file that has the right name, so one that the manifest does not name would be loaded too.
    return f"its manifest does not name {min(paths)}" if paths else None


def resume_points(folder: Path) -> list[ResumePoint]:
    """Returns the points of all checkpoint folders, finished or not, newest first."""
    tags = (_TAG.fullmatch(path.name) for path in folder.glob("phase*-step*"))
    return sorted((ResumePoint(int(tag[1]), int(tag[2])) for tag in tags if tag), reverse=True)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields the name and the path of each file but the manifest."""
    # A kill in the middle of `atomic_write` leaves a hidden file.
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.name != MANIFEST and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix(), path
