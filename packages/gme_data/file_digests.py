"""The sha256 of a file, computed once for each state that the file is in.

A state is the inode with its size and times: any change sets the time at which the inode changed, and nobody can set
that back. A file that was changed an instant ago may change again within one tick of the file system's clock, and is
read anew. Knows files; not what they are part of.
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
"""Bytes. The digest of a smaller file is computed sooner than looked up on disk."""
_TICK_SECONDS, _COARSE_TICK_SECONDS = 0.1, 2.0
"""How coarse the clock of a file system may be: one with fractions of a second, and any."""


class FileVersion(NamedTuple):
    """What differs after any change of a file."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


_DIGESTS: dict[FileVersion, str] = {}


def file_version(path: Path) -> FileVersion:
    """The state of a file, or of what a link leads to. Raises OSError as `Path.stat`."""
    return _version_of(path.stat())


def digest_known(status: os.stat_result) -> str | None:
    """The digest of a file in a state that this process has hashed it in; None if it has not."""
    return _DIGESTS.get(_version_of(status))


def is_settled(version: FileVersion) -> bool:
    """Whether a change from now on would give the file another version."""
    return time.time_ns() - version.ctime_ns > _tick_seconds(version) * 1e9


def file_digest(path: Path, *, across_runs: bool = False) -> str:
    """Hex sha256 of a file, which this process reads once as long as it does not change.

    Args:
        path: The file.
        across_runs: Whether the digest of a large file may come from the user's cache folder, where an earlier run left
            it: only the first start reads all the weights of a model.

    Raises:
        OSError: It can't be read.
    """
    version = file_version(path)
    if version in _DIGESTS:
        return _DIGESTS[version]
    entry = _cache_entry(path, version) if across_runs and version.size >= _LARGE else None
    known = _read_entry(entry) if entry else None
    digest = known or sha256_file(path)
    if known or file_version(path) == version:
        if is_settled(version):
            _DIGESTS[version] = digest
        if entry and not known and time.time_ns() - version.ctime_ns > _COARSE_TICK_SECONDS * 1e9:
            _write_entry(entry, digest)
    return digest


def _version_of(status: os.stat_result) -> FileVersion:
    return FileVersion(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _tick_seconds(version: FileVersion) -> float:
    return _TICK_SECONDS if version.ctime_ns % 10**9 else _COARSE_TICK_SECONDS


def _cache_entry(path: Path, version: FileVersion) -> Path | None:
    """Where the digest of a file is kept; None for a user without a home."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME")
    if not home:
        return None
    cache = Path(home) if os.environ.get("XDG_CACHE_HOME") else Path(home) / ".cache"
    return cache / "gme-foundry" / "digests" / sha256_json([str(path.resolve()), *version])


def _read_entry(entry: Path) -> str | None:
    """The digest that was kept; None where there is none, or none that is whole."""
    try:
        digest = entry.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return digest if re.fullmatch("[0-9a-f]{64}", digest) else None


def _write_entry(entry: Path, digest: str) -> None:
    """Keep a digest. Where the cache can't be written, as in a container, the next start reads the weights again."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(entry, digest.encode())
