"""A DVC object store, in a folder or on S3: checked against its own names, and repaired by removal.

DVC trusts a read-only object in its cache without hashing it again: a bit that flipped there is checked out, pushed and
pulled as if nothing were wrong. DVC also takes the listing of a folder in a remote as proof that all files of the
folder are there. So a damaged object, and every listing that names a missing one, is removed: the next add or push then
writes them from the workspace, whose files are proven by the sha256 of their manifest. Knows the layout of a store, not
DVC.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from gme_data.errors import FoundryError
from gme_data.redact import redact
from gme_data.structured import StructureError, open_regular, parse_json
from gme_release.dvc.pointers import ObjectName

_LOGGER = logging.getLogger(__name__)
_OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")
"""The file of an object; its folder has the first two digits of the hash."""
_LISTING_SUFFIX = ".dir"
_ABANDONED_AFTER_SECONDS = 3600.0
_BLOCK_BYTES = 2**22
_MAX_LISTING_BYTES = 2**30
"""The listing of a folder of millions of files is about this large."""


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """A store reached over a network: an fsspec file system and the folder in it."""

    files: Any
    root: str


Store = Path | RemoteStore


class _ListingEntry(BaseModel):
    """A file in the listing of a folder."""

    model_config = ConfigDict(frozen=True)

    md5: ObjectName


@dataclass(frozen=True, slots=True)
class DamagedObject:
    """An object that is not what its name says, a listing of objects that are missing, or a missing object.

    Attributes:
        name: The object's name.
        what: What is wrong with it.
        present: Whether it is in the store, so that it can be removed.
    """

    name: str
    what: str
    present: bool = True


def store_at(workspace: Path, url: str) -> Store:
    """Returns the store behind the URL of a remote, as configured; a relative folder starts at ``.dvc``."""
    folder = remote_folder(workspace, url)
    if folder is not None:
        return folder
    import fsspec

    # fsspec caches file systems by URL; a cached one would keep the endpoint of an earlier AWS_ENDPOINT_URL.
    files, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    return RemoteStore(files, str(root))


def remote_folder(workspace: Path, url: str) -> Path | None:
    """Returns the folder on this machine that the URL of a remote names; None for a URL with a scheme."""
    return None if "://" in url else (workspace / ".dvc" / Path(url).expanduser()).resolve()


def find_damage(store: Store, expected: Mapping[str, str] = MappingProxyType({})) -> list[DamagedObject]:
    """Reads and hashes every object of a store, and changes nothing.

    Args:
        store: The store; one that does not exist has no objects.
        expected: Objects that must be there (``<32 hex>``, or ``<32 hex>.dir`` with all that it lists), each with the
            text for the case that it is missing.

    Raises:
        FoundryError: The store can't be reached or read.
    """
    try:
        names = _object_names(store)
        objects = [name for name in names if _OBJECT.fullmatch(name[2:])]
        damaged = [DamagedObject(name, "damaged") for name in objects if not _is_sound(store, name)]
        damaged_names = {damage.name for damage in damaged}
        listings = [name for name in names if name.endswith(_LISTING_SUFFIX) and name not in damaged_names]
        problems = {name: _listing_problem(store, name, set(names)) for name in listings}
    except OSError as error:
        raise _unreadable(store, error) from error
    except Exception as error:  # the libraries behind fsspec have no common error class
        if isinstance(store, Path):
            raise
        raise _unreadable(store, error) from error
    return [
        *damaged,
        *(DamagedObject(name, problem) for name, problem in problems.items() if problem),
        *(DamagedObject(name, text, present=False) for name, text in expected.items() if name not in names),
    ]


def remove_damaged(store: Store, damage: Iterable[DamagedObject]) -> None:
    """Removes the damaged objects that are present, so that the next push writes them again."""
    for damaged in damage:
        if not damaged.present:
            continue
        if isinstance(store, Path):
            path = _object_path(store, damaged.name)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        else:
            store.files.rm(_object_key(store, damaged.name))


def remove_listings(store: Store, md5s: Iterable[str]) -> None:
    """Removes the listings of folders, so that the next push looks for each of their files instead of trusting them."""
    names = set(_object_names(store))
    remove_damaged(store, [DamagedObject(md5, "lists objects that are missing") for md5 in md5s if md5 in names])


def scrub(store: Path) -> list[Path]:
    """Removes damaged objects, listings of missing objects and abandoned temporary files from a local store.

    Returns:
        The removed objects.
    """
    for path in _object_files(store):
        # Any other name is a temporary file: of a process that writes now, or of one that died long ago.
        if not _OBJECT.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
            path.unlink()
    removed: list[Path] = []
    while damage := find_damage(store):  # once an object is removed, the listings that name it are damaged too
        remove_damaged(store, damage)
        removed += [_object_path(store, damaged.name) for damaged in damage]
        for damaged in damage:
            _LOGGER.warning("Removed from the store: %s (%s)", damaged.name, damaged.what)
    return removed


def missing_objects(store: Store, md5: str) -> list[str]:
    """Returns the objects of the folder `md5` (``<32 hex>.dir``), its listing included, that are not in the store.

    Raises:
        FoundryError: The store can't be reached or read.
    """
    try:
        names = set(_object_names(store))
        return _missing_entries(store, md5, names) if md5 in names else [md5]
    except StructureError:  # an object that is no listing counts as a missing one: the next push writes it again
        return [md5]
    except Exception as error:  # the libraries behind fsspec have no common error class
        raise _unreadable(store, error) from error


def _unreadable(store: Store, error: Exception) -> FoundryError:
    where = store if isinstance(store, Path) else store.root
    return FoundryError(
        f"The store {where} can't be read: {redact(str(error))[:300]}",
        hint="Mend the cause (address, network, permissions) and run the same command again.",
        exit_code=1,
    )


def _object_names(store: Store) -> list[str]:
    """Returns the name of every file of the store: folder and file name put together."""
    if isinstance(store, Path):
        return [path.parent.name + path.name for path in _object_files(store)]
    store.files.invalidate_cache()
    return sorted("".join(str(path).rsplit("/", 2)[1:]) for path in store.files.find(f"{store.root}/files/md5"))


def _object_files(store: Path) -> list[Path]:
    return sorted((store / "files" / "md5").glob("??/*"))


def _object_path(store: Path, md5: str) -> Path:
    return store / "files" / "md5" / md5[:2] / md5[2:]


def _object_key(store: RemoteStore, md5: str) -> str:
    return f"{store.root}/files/md5/{md5[:2]}/{md5[2:]}"


def _open(store: Store, md5: str) -> IO[bytes]:
    if isinstance(store, Path):
        return os.fdopen(open_regular(_object_path(store, md5)), "rb")
    handle: IO[bytes] = store.files.open(_object_key(store, md5), "rb")
    return handle


def _missing_entries(store: Store, listing: str, names: set[str]) -> list[str]:
    """Returns the objects that a listing names and that are not among `names`."""
    with _open(store, listing) as handle:
        entries = parse_json(handle.read(), list[_ListingEntry], where=listing, max_bytes=_MAX_LISTING_BYTES)
    return sorted({entry.md5 for entry in entries} - names)


def _listing_problem(store: Store, listing: str, names: set[str]) -> str:
    """Returns what is wrong with a listing; empty if nothing is."""
    try:
        count = len(_missing_entries(store, listing, names))
    except StructureError:  # its bytes have the hash of its name, but are no listing
        return "is no listing of a folder"
    return f"lists {count} objects that are missing" if count else ""


def _is_sound(store: Store, name: str) -> bool:
    """Returns whether the bytes of an object have the hash that is its name."""
    digest = hashlib.md5(usedforsecurity=False)  # DVC's name for the bytes, not a security measure
    try:
        with _open(store, name) as handle:
            for block in iter(partial(handle.read, _BLOCK_BYTES), b""):
                digest.update(block)
    except StructureError:  # a folder or FIFO where an object should be
        return False
    return digest.hexdigest() == name.removesuffix(_LISTING_SUFFIX)
