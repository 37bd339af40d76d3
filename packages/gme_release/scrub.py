"""Check a local DVC object store against its own names.

DVC trusts an object that lies in its cache read-only without hashing it again: a flipped bit there is checked out,
pushed and pulled as if nothing were wrong. Removing such an object makes the next add or push write it anew from the
workspace, whose files are proven by the sha256 of their manifest. Knows the layout of a store, not DVC.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from pathlib import Path

_LOGGER = logging.getLogger(__name__)
_OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")
_ABANDONED_AFTER_SECONDS = 3600.0


def scrub(store: Path) -> list[Path]:
    """Remove damaged objects and abandoned temporary files below ``<store>/files/md5``.

    Returns:
        The removed objects, sorted.
    """
    removed = [path for path in sorted((store / "files" / "md5").glob("??/*")) if not _is_sound(path)]
    for path in removed:
        _LOGGER.warning("Damaged object removed from %s: %s%s", store, path.parent.name, path.name)
        path.unlink()
    return removed


def _is_sound(path: Path) -> bool:
    if not _OBJECT.fullmatch(path.name):
        # A temporary name: of a writer that works, or of one that died long ago.
        return time.time() - path.stat().st_mtime < _ABANDONED_AFTER_SECONDS
    with path.open("rb") as handle:
        # md5 is DVC's name for the bytes, not a security measure.
        found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return found == path.parent.name + path.name.removesuffix(".dir")
