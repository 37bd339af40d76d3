"""Check a local DVC object store against its own names.

DVC trusts an object that lies in its cache read-only without hashing it again: a flipped bit there is checked out,
pushed and pulled as if nothing were wrong. And it takes a folder's listing in a remote as proof that all files of the
folder are there. Removing a damaged object, and every listing that names a missing one, makes the next add or push
write them anew from the workspace, whose files are proven by the sha256 of their manifest. Knows the layout of a store,
not DVC.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from pathlib import Path

_LOGGER = logging.getLogger(__name__)
_OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")
_LISTING = ".dir"
_ABANDONED_AFTER_SECONDS = 3600.0


def scrub(store: Path) -> list[Path]:
    """Remove damaged objects, listings of missing objects and abandoned temporary files from a store.

    Returns:
        The removed objects.
    """
    removed = [path for path in _objects(store) if not _is_sound(path)]
    _remove(removed, "Damaged object")
    torn = [path for path in _objects(store) if path.suffix == _LISTING and _missing(store, path)]
    _remove(torn, "Listing of missing objects")
    return removed + torn


def missing_objects(store: Path, md5: str) -> list[str]:
    """Names of the objects of the folder `md5` (``<32 hex>.dir``) that are not in the store, the listing included."""
    listing = _path(store, md5)
    return _missing(store, listing) if listing.is_file() else [md5]


def _objects(store: Path) -> list[Path]:
    return sorted((store / "files" / "md5").glob("??/*"))


def _path(store: Path, md5: str) -> Path:
    return store / "files" / "md5" / md5[:2] / md5[2:]


def _missing(store: Path, listing: Path) -> list[str]:
    names = sorted({entry["md5"] for entry in json.loads(listing.read_bytes())})
    return [name for name in names if not _path(store, name).is_file()]


def _remove(paths: list[Path], what: str) -> None:
    for path in paths:
        _LOGGER.warning("%s removed from the store: %s%s", what, path.parent.name, path.name)
        path.unlink()


def _is_sound(path: Path) -> bool:
    if not _OBJECT.fullmatch(path.name):
        # A temporary name: of a writer that works, or of one that died long ago.
        return time.time() - path.stat().st_mtime < _ABANDONED_AFTER_SECONDS
    with path.open("rb") as handle:
        # md5 is DVC's name for the bytes, not a security measure.
        found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return found == path.parent.name + path.name.removesuffix(_LISTING)
