"""Check a DVC object store, on this machine or on S3, against its own names and against what is said to be in it.

DVC trusts an object that lies in its cache read-only without hashing it again: a flipped bit there is checked out,
pushed and pulled as if nothing were wrong. And it takes a folder's listing in a remote as proof that all files of the
folder are there. Removing a damaged object, and every listing that names a missing one, makes the next add or push
write them anew from the workspace, whose files are proven by the sha256 of their manifest. Knows the layout of a store,
not DVC.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from gme_data.errors import FoundryError
from gme_data.redact import redact
from gme_data.structured import StructureError, open_regular, parse_json
from gme_release.dvc_config import local_folder
from gme_release.pointers import ObjectName

_LOGGER = logging.getLogger(__name__)
_OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")
_LISTING = ".dir"
_ABANDONED_AFTER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """A store reached over a network: an fsspec file system and the folder in it."""

    files: Any
    root: str


Store = Path | RemoteStore
_LARGEST_LISTING = 2**30
"""Bytes of the listing of a folder of millions of files."""


class _Listed(BaseModel):
    """A file in the listing of a folder."""

    model_config = ConfigDict(frozen=True)

    md5: ObjectName


@dataclass(frozen=True, slots=True)
class Damage:
    """One object that is not what its name says, or a listing of objects that are not there.

    Attributes:
        name: The object's.
        what: What is wrong with it.
        present: Whether it is there, so that it can be removed.
    """

    name: str
    what: str
    present: bool = True


def store_at(workspace: Path, url: str) -> Store:
    """The store behind the URL of a remote, as configured; relative to ``.dvc`` if it is a folder."""
    folder = local_folder(workspace, url)
    if folder is not None:
        return folder
    import fsspec

    # The environment says where S3 is: a connection of before may lead elsewhere.
    files, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    return RemoteStore(files, str(root))


def examine(store: Store, expected: Mapping[str, str] = MappingProxyType({})) -> list[Damage]:
    """Read and hash every object; nothing is changed.

    Args:
        store: A store that is not there has no objects.
        expected: Objects that must be there (``<32 hex>``, or ``<32 hex>.dir`` with all that it lists), and what to say
            of each that is not.

    Raises:
        FoundryError: The store can't be reached or read.
    """
    try:
        names = _names(store)
        damaged = [Damage(name, "damaged") for name in names if _OBJECT.fullmatch(name[2:]) and not _sound(store, name)]
        bad = {one.name for one in damaged}
        listings = [name for name in names if name.endswith(_LISTING) and name not in bad]
        torn = [(name, _what_is_missing(store, name, set(names))) for name in listings]
    except OSError as error:
        raise _unreadable(store, error) from error
    except Exception as error:  # the libraries of stores have no error in common
        if isinstance(store, Path):
            raise
        raise _unreadable(store, error) from error
    missing = [Damage(name, told, present=False) for name, told in expected.items()]
    return [
        *damaged,
        *(Damage(name, what) for name, what in torn if what),
        *(one for one in missing if one.name not in names),
    ]


def remove(store: Store, damage: list[Damage]) -> None:
    """Remove damaged objects that are there, so that the next push writes them anew."""
    for one in damage:
        if not one.present:
            continue
        if isinstance(store, Path):
            path = _path(store, one.name)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        else:
            store.files.rm(_key(store, one.name))


def forget_listings(store: Store, md5s: Iterable[str]) -> None:
    """Remove the listings of folders, so that the next push looks at each of their files and does not trust them."""
    listed = set(_names(store))
    remove(store, [Damage(md5, "lists objects that are missing") for md5 in md5s if md5 in listed])


def scrub(store: Path) -> list[Path]:
    """Remove damaged objects, listings of missing objects and abandoned temporary files from a local store.

    Returns:
        The removed objects.
    """
    for path in _objects(store):
        # A temporary name: of a writer that works, or of one that died long ago.
        if not _OBJECT.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
            path.unlink()
    removed: list[Path] = []
    while damage := examine(store):  # a listing lacks what was just removed
        remove(store, damage)
        removed += [_path(store, one.name) for one in damage]
        for one in damage:
            _LOGGER.warning("Removed from the store: %s (%s)", one.name, one.what)
    return removed


def missing_objects(store: Store, md5: str) -> list[str]:
    """Names of the objects of the folder `md5` (``<32 hex>.dir``) that are not in the store, the listing included.

    Raises:
        FoundryError: The store can't be reached or read.
    """
    try:
        names = set(_names(store))
        return _missing(store, md5, names) if md5 in names else [md5]
    except StructureError:  # a listing that is none counts as missing: it is written anew
        return [md5]
    except Exception as error:  # the libraries of stores have no error in common
        raise _unreadable(store, error) from error


def _unreadable(store: Store, error: Exception) -> FoundryError:
    where = store if isinstance(store, Path) else store.root
    return FoundryError(
        f"The store {where} can't be read: {redact(str(error))[:300]}",
        hint="Mend the cause (address, network, permissions) and run the same command again.",
        exit_code=1,
    )


def _names(store: Store) -> list[str]:
    """Every object: its hash, and what else its name says."""
    if isinstance(store, Path):
        return [path.parent.name + path.name for path in _objects(store)]
    store.files.invalidate_cache()
    home = f"{store.root}/files/md5"
    return sorted("".join(str(path).rsplit("/", 2)[1:]) for path in store.files.find(home))


def _objects(store: Path) -> list[Path]:
    return sorted((store / "files" / "md5").glob("??/*"))


def _path(store: Path, md5: str) -> Path:
    return store / "files" / "md5" / md5[:2] / md5[2:]


def _key(store: RemoteStore, md5: str) -> str:
    return f"{store.root}/files/md5/{md5[:2]}/{md5[2:]}"


def _open(store: Store, md5: str) -> IO[bytes]:
    if isinstance(store, Path):
        return os.fdopen(open_regular(_path(store, md5)), "rb")
    opened: IO[bytes] = store.files.open(_key(store, md5), "rb")
    return opened


def _missing(store: Store, listing: str, names: set[str]) -> list[str]:
    with _open(store, listing) as handle:
        entries = parse_json(handle.read(), list[_Listed], where=listing, max_bytes=_LARGEST_LISTING)
    return sorted({entry.md5 for entry in entries} - names)


def _what_is_missing(store: Store, listing: str, names: set[str]) -> str:
    """What is wrong with a listing; empty if nothing is."""
    try:
        count = len(_missing(store, listing, names))
    except StructureError:  # somebody gave it the name of its bytes, whatever they are
        return "is no listing of a folder"
    return f"lists {count} objects that are missing" if count else ""


def _sound(store: Store, name: str) -> bool:
    # md5 is DVC's name for the bytes, not a security measure.
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with _open(store, name) as handle:
            for block in _blocks(handle):
                digest.update(block)
    except StructureError:  # a folder or FIFO in the place of an object
        return False
    return digest.hexdigest() == name.removesuffix(_LISTING)


def _blocks(handle: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(handle.read, 2**22), b"")
