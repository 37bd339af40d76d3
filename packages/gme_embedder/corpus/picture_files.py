"""Pictures beside a table, identified by their bytes, since another file may have the same path tomorrow."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_READER_THREADS = 8
"""Files are read by this many threads, since over a network most of the time is waiting."""


@dataclass(frozen=True, slots=True)
class PictureVersion:
    """The content of a picture file when it was read.

    Its size in bytes and the ctime of its inode tell an unchanged file without reading it: unlike the mtime, a program
    can't set the ctime back.
    """

    sha256: str
    bytes: int
    ctime_ns: int

    def unchanged(self, path: Path) -> bool:
        """Tells whether the file still has this content; it is read only if its size or time differ."""
        if self.same_stat(path):
            return True
        now = read_picture(path)
        return now is not None and now.sha256 == self.sha256

    def same_stat(self, path: Path) -> bool:
        """Tells whether the file has the size and the time that it had; False for one that is gone."""
        try:
            stat = path.stat()
        except (OSError, ValueError):  # a path may hold a NUL
            return False
        return (stat.st_size, stat.st_ctime_ns) == (self.bytes, self.ctime_ns)


def read_picture(path: Path) -> PictureVersion | None:
    """Reads the file as it is now; None if it can't be read, which is reported where the picture is opened."""
    try:
        with path.open("rb") as handle:
            stat = os.fstat(handle.fileno())  # before the content, so that a change while it is read shows
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except (OSError, ValueError):  # a path may hold a NUL
        return None
    return PictureVersion(digest, stat.st_size, stat.st_ctime_ns)


def read_pictures(
    paths: Iterable[Path], before: Mapping[Path, PictureVersion] = MappingProxyType({})
) -> dict[Path, PictureVersion]:
    """Reads each distinct file once, several at a time; those that can't be read are left out.

    Args:
        paths: The files.
        before: Earlier versions of some of them; a file with the same size and time is not read again.
    """
    distinct = list(dict.fromkeys(paths))
    if not distinct:
        return {}

    def read(path: Path) -> PictureVersion | None:
        version = before.get(path)
        return version if version and version.same_stat(path) else read_picture(path)

    with ThreadPoolExecutor(_READER_THREADS) as threads:
        versions = threads.map(read, distinct)
        return {path: version for path, version in zip(distinct, versions, strict=True) if version is not None}


def changed_pictures(versions: Mapping[Path, PictureVersion]) -> list[Path]:
    """Returns the files whose content is no longer what was read, or that are gone."""
    if not versions:
        return []
    with ThreadPoolExecutor(_READER_THREADS) as threads:
        unchanged = threads.map(lambda path: versions[path].unchanged(path), versions)
        return [path for path, is_same in zip(versions, unchanged, strict=True) if not is_same]
