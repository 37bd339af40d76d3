"""Pictures beside a table, known by their bytes: a path says nothing of what lies behind it tomorrow."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_READERS = 8
"""Files read at once: over a network most of the time is waiting."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """What a picture file was when it was read.

    Its size in bytes and the time of its inode tell an unchanged one without reading it: unlike the time of its
    content, nobody can set that back.
    """

    sha256: str
    bytes: int
    ctime_ns: int

    def unchanged(self, path: Path) -> bool:
        """Whether the file still has the content that was read. Read again only where size or time differ."""
        if self.untouched(path):
            return True
        now = read_picture_file(path)
        return now is not None and now.sha256 == self.sha256

    def untouched(self, path: Path) -> bool:
        """Whether the file has the size and the time that it had; False for one that is gone."""
        try:
            stat = path.stat()
        except (OSError, ValueError):  # a path may hold a NUL
            return False
        return (stat.st_size, stat.st_ctime_ns) == (self.bytes, self.ctime_ns)


def read_picture_file(path: Path) -> PictureFile | None:
    """The file as it is now; None where it can't be read, which whoever opens the picture will say better."""
    try:
        with path.open("rb") as handle:
            stat = os.fstat(handle.fileno())  # before the content: a change while it is read shows afterwards
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except (OSError, ValueError):  # a path may hold a NUL
        return None
    return PictureFile(digest, stat.st_size, stat.st_ctime_ns)


def read_picture_files(
    paths: Iterable[Path], known: Mapping[Path, PictureFile] = MappingProxyType({})
) -> dict[Path, PictureFile]:
    """Each distinct file once, several at a time; those that can't be read are left out.

    Args:
        paths: The files.
        known: What some of them were before; one that is untouched since is not read again.
    """
    distinct = list(dict.fromkeys(paths))
    if not distinct:
        return {}

    def read(path: Path) -> PictureFile | None:
        before = known.get(path)
        return before if before and before.untouched(path) else read_picture_file(path)

    with ThreadPoolExecutor(_READERS) as threads:
        files = threads.map(read, distinct)
        return {path: file for path, file in zip(distinct, files, strict=True) if file is not None}


def changed_files(files: Mapping[Path, PictureFile]) -> list[Path]:
    """Those whose content is no longer what was read, or that are gone."""
    if not files:
        return []
    with ThreadPoolExecutor(_READERS) as threads:
        same = threads.map(lambda path: files[path].unchanged(path), files)
        return [path for path, unchanged in zip(files, same, strict=True) if not unchanged]
