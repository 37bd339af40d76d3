"""The sha256 of a file, computed once for each version of the file.

A version is the inode with its size and times: any change sets its ctime, which a program can't set back. A file that
was changed an instant ago may change again within one tick of the file system's clock, so it is read again. Knows
files; not what they are part of.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gme_data.digests import sha256_file, sha256_json
from gme_data.journal import atomic_write

_LARGE = 16 * 2**20
"""Size in bytes from which digests are cached on disk; that of a smaller file is computed sooner than looked up."""
_TICK_SECONDS, _COARSE_TICK_SECONDS = 0.1, 2.0
"""The resolution of a file system's clock, in s: of one that has fractions of a second, and of any other."""


class FileVersion(NamedTuple):
    """The stat fields of a file, at least one of which differs after any change."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


_DIGESTS: dict[FileVersion, str] = {}


def file_version(path: Path) -> FileVersion:
    """Returns the version of a file, or of what a link leads to. Raises OSError as `Path.stat`."""
    return _version_of(path.stat())


def digest_known(status: os.stat_result) -> str | None:
    """Returns the digest of a file by its stat; None if this process has not hashed this version."""
    return _DIGESTS.get(_version_of(status))


def is_stable(version: FileVersion) -> bool:
    """Tells whether any change from now on gives the file another version: its last one is more than a tick ago."""
    # A file system whose times have fractions of a second has a fine clock.
    tick = _TICK_SECONDS if version.ctime_ns % 10**9 else _COARSE_TICK_SECONDS
    return time.time_ns() - version.ctime_ns > tick * 1e9


def file_digest(path: Path, *, across_runs: bool = False) -> str:
    """Returns the hex sha256 of a file, which this process reads once as long as it does not change.

    Args:
        path: The file.
        across_runs: Whether the digest of a large file may come from the user's cache folder, where an earlier run
            wrote it, so that only the first start reads all weights of a model.

    Raises:
        OSError: It can't be read.
    """
    version = file_version(path)
    if version in _DIGESTS:
        return _DIGESTS[version]
    entry = _cache_entry(path, version) if across_runs and version.size >= _LARGE else None
    cached = _read_entry(entry) if entry else None
    digest = cached or sha256_file(path)
    # A file that was changed while it was read has no digest of any version.
    if cached or file_version(path) == version:
        if is_stable(version):
            _DIGESTS[version] = digest
        if entry and not cached and time.time_ns() - version.ctime_ns > _COARSE_TICK_SECONDS * 1e9:
            _write_entry(entry, digest)
    return digest


def _version_of(status: os.stat_result) -> FileVersion:
    return FileVersion(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _cache_entry(path: Path, version: FileVersion) -> Path | None:
    """Returns the path of a cached digest; None for a user without a home."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME")
    if not home:
        return None
    cache = Path(home) if os.environ.get("XDG_CACHE_HOME") else Path(home) / ".cache"
    return cache / "gme-foundry" / "digests" / sha256_json([str(path.resolve()), *version])


def _read_entry(entry: Path) -> str | None:
    """Returns the cached digest; None if there is none, or it is damaged."""
    try:
        digest = entry.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return digest if re.fullmatch("[0-9a-f]{64}", digest) else None


def _write_entry(entry: Path, digest: str) -> None:
    """Caches a digest. Where the cache can't be written, as in a container, the next start reads the weights again."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(entry, digest.encode())
