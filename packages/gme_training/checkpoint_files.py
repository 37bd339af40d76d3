"""The manifest of a checkpoint: which files it has, of what content, and how far the run was; written last.

It carries a digest of itself, since a digit that flipped in it would be a number like any other. Knows files and
digests; no engine.
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
Mark = tuple[Annotated[int, Field(ge=0)], Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
"""Size and sha256 of a file."""


@dataclass(frozen=True, slots=True, order=True)
class ResumePoint:
    """How far a checkpoint got: `step` steps of phase `phase` are done, both counted from 0."""

    phase: Annotated[int, Field(ge=0)]
    step: Annotated[int, Field(ge=0)]

    @property
    def tag(self) -> str:
        """Name of its folder."""
        return f"phase{self.phase:02d}-step{self.step:06d}"


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """What ``MANIFEST.json`` says.

    Attributes:
        point: How far the run was.
        ranks: Number of processes that wrote it.
        trained: Names of the trained parameters.
        files: Size and digest of each file by its path below the folder.
        digest: Of all the above.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    point: ResumePoint
    ranks: Annotated[int, Field(ge=1)]
    trained: tuple[str, ...]
    files: dict[str, Mark]
    digest: str


def write_manifest(folder: Path, point: ResumePoint, ranks: int, trained: list[str]) -> None:
    """Put the files of a checkpoint on disk, then what says that it is whole."""
    fsync_tree(folder)
    fields = {
        "point": asdict(point),
        "ranks": ranks,
        "trained": trained,
        "files": {name: [path.stat().st_size, sha256_file(path)] for name, path in _files(folder)},
    }
    atomic_write(folder / MANIFEST, json.dumps({**fields, "digest": sha256_json(fields)}).encode())


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of a checkpoint that was finished.

    Raises:
        FileNotFoundError: It never was.
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


def damage(folder: Path, manifest: CheckpointManifest) -> str | None:
    """What differs between a checkpoint and its manifest; None if nothing does."""
    try:
        there = dict(_files(folder))
        for name, (size, digest) in manifest.files.items():
            path = there.pop(name, None)
            if path is None or path.stat().st_size != size or sha256_file(path) != digest:
                return f"{name} is damaged or missing"
    except OSError as error:
        return f"it can't be read: {error}"
    # DeepSpeed loads what has the right name, so a file that nobody vouches for would be loaded too.
    return f"its manifest does not name {min(there)}" if there else None


def points_in(folder: Path) -> list[ResumePoint]:
    """The points of which there are folders, finished or not, newest first."""
    tags = (_TAG.fullmatch(path.name) for path in folder.glob("phase*-step*"))
    return sorted((ResumePoint(int(tag[1]), int(tag[2])) for tag in tags if tag), reverse=True)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each file but the manifest and what a kill in writing it left, which is hidden."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.name != MANIFEST and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix(), path
