"""Which model a folder holds: one digest of all that its vectors depend on.

The same digest wherever the folder lies and however it is called (path, hub name, alias), so it is what vectors on
disk, an index and a running server name their model by. Precision, device and instruction are not the model's: whoever
records vectors notes them beside it. Reads files only, and imports no torch for a folder without adapters.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from gme_data.digests import sha256_file, sha256_json
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_embedder.layout import deciding_files, is_adapter

_LARGE = 16 * 2**20
"""Bytes. The digest of a smaller file is computed sooner than looked up."""
_SETTLED_SECONDS = 2.0
"""A file changed since may change again within one tick of the file system's clock."""


def model_digest(folder: Path) -> str:
    """Digest of the content of a model folder that decides vectors.

    Covers configuration, weights, tokenizer and input settings, by name and bytes, and for adapters the base that they
    are folded into; not the README, plots or logs beside them. Digests of large files are kept in the user's cache
    folder by path, inode, size and times, so that only the first start reads all weights.

    Args:
        folder: As `locate` returns it.

    Returns:
        Hex sha256.

    Raises:
        FoundryError: No such folder or not one of a model, a file can't be read, or adapters whose base is not there.
    """
    files = deciding_files(folder)
    if not files:
        raise FoundryError(
            f"No model folder '{folder}': there is no configuration and no weights.",
            hint="Give the folder of a trained or released model.",
        )
    own = sha256_json([[path.name, _digest(path)] for path in files])
    if not is_adapter(folder):
        return own
    from gme_embedder.adapter import base_folder, read_adapter

    return sha256_json([own, model_digest(base_folder(read_adapter(folder)))])


def _digest(path: Path) -> str:
    """The sha256 of a file; of a large one from the cache, if the file was not changed since."""
    try:
        version = _version(path)
        entry = _cache_entry(version) if path.stat().st_size >= _LARGE else None
        if entry is None:
            return sha256_file(path)
        if (known := _read_entry(entry)) is not None:
            return known
        digest = sha256_file(path)
        if time.time() - path.stat().st_ctime > _SETTLED_SECONDS and _version(path) == version:
            _write_entry(entry, digest)
    except OSError as error:
        raise FoundryError(f"{path} can't be read: {error.strerror}") from error
    return digest


def _version(path: Path) -> tuple[str | int, ...]:
    """What differs after any change of a file: nobody can set back the time at which its inode changed."""
    status = path.stat()
    return str(path.resolve()), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _cache_entry(version: tuple[str | int, ...]) -> Path | None:
    """Where the digest of a file is kept; None for a user without a home."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME")
    if not home:
        return None
    cache = Path(home) if os.environ.get("XDG_CACHE_HOME") else Path(home) / ".cache"
    return cache / "gme-foundry" / "digests" / sha256_json(version)


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
