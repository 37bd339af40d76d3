"""Checks both stores of a workspace, the DVC cache and the remote, against the records that name their objects.

The records are the pointers of the workspace, the registered versions of its model and the releases in ``dist/``. That
a store is sound in itself proves nothing, since a store that lost everything is. Knows where stores and records are,
not how a store is checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.redact import redact
from gme_release.config import ReleaseConfig
from gme_release.dvc.config import cache_folder, ensure_dvc_config, remote_url
from gme_release.dvc.object_store import DamagedObject, find_damage, remove_damaged, store_at
from gme_release.dvc.pointers import read_outputs
from gme_release.locks import writer_lock
from gme_release.release.record import RECORD, read_record
from gme_release.settings import RecordSettings

_SUFFIX = ".dvc"
POINTERS = "pointers"
"""Key of the problems with the pointers themselves in the result of `audit`."""


@dataclass(frozen=True, slots=True)
class _ExpectedObject:
    """An object that must be in the remote.

    Attributes:
        md5: DVC's name of the object.
        source: The record that names it, for people.
        in_cache: Whether it must be in the cache too.
    """

    md5: str
    source: str
    in_cache: bool


def audit(workspace: Path, config: ReleaseConfig, *, repair: bool = False) -> dict[str, list[DamagedObject]]:
    """Returns what is damaged or missing, by store; with `repair`, damaged objects are removed.

    Raises:
        FoundryError: No record names an object, a store or a record can't be read, or another process holds the lock.
    """
    pointer_problems, expected = _objects_of_pointers(workspace, config)
    if not expected and not pointer_problems:
        raise FoundryError(
            f"Nothing to check: no pointer (*{_SUFFIX}) in {workspace.resolve()}, so nothing is under version there.",
            hint="Run `gme pipeline` first, or give its --workspace; pointers that were lost are restored from git.",
        )
    expected += [*_objects_of_versions(workspace, config), *_objects_of_releases(workspace)]
    # Under the lock, since objects that a push is writing would look damaged.
    with writer_lock(workspace, "dvc"):
        ensure_dvc_config(workspace, config)
        url = remote_url(workspace, config)
        stores = {"cache": cache_folder(workspace), f"remote {redact(url)}": store_at(workspace, url)}
        damage = {POINTERS: pointer_problems} if pointer_problems else {}
        for label, store in stores.items():
            in_store = [entry for entry in expected if entry.in_cache or label != "cache"]
            no_folder = " (there is no such folder)" if isinstance(store, Path) and not store.is_dir() else ""
            # Reversed, so that of several records that name an object the first one is reported: the pointer.
            texts = {
                entry.md5: f"{entry.source} names {entry.md5}, which is not in the {label}{no_folder}"
                for entry in reversed(in_store)
            }
            damage[label] = find_damage(store, texts)
            if repair:
                remove_damaged(store, damage[label])
    return damage


def _objects_of_pointers(workspace: Path, config: ReleaseConfig) -> tuple[list[DamagedObject], list[_ExpectedObject]]:
    """Returns the pointers that can't be read or are missing, and the objects that the others name."""
    files = sorted({path.relative_to(workspace).as_posix() for path in _pointer_files(workspace)})
    problems, expected = [], []
    for name in files:
        try:
            outputs = read_outputs(workspace / name)
        except (OSError, FoundryError) as error:
            problems.append(DamagedObject(name, f"{error}; restore it from git", present=False))
        else:
            expected += [_ExpectedObject(output.md5, name, in_cache=True) for output in outputs if output.is_stored]
    missing = [f"{folder}{_SUFFIX}" for folder in config.tracked if f"{folder}{_SUFFIX}" not in files] if files else []
    problems += [
        DamagedObject(name, f"{name} is missing, though release.tracked names its folder", present=False)
        for name in missing
    ]
    return problems, expected


def _pointer_files(workspace: Path) -> Iterator[Path]:
    """Yields every pointer that lies neither in a hidden folder nor in a folder with a pointer."""
    for folder, subfolders, files in os.walk(workspace):
        yield from (Path(folder) / name for name in files if name.endswith(_SUFFIX) and name != _SUFFIX)
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and f"{name}{_SUFFIX}" not in files]


def _objects_of_versions(workspace: Path, config: ReleaseConfig) -> list[_ExpectedObject]:
    """Returns the objects that registered versions name; `dvc gc` may have removed older ones from the cache."""
    if not RecordSettings.from_environment().has_records(workspace):
        return []
    from gme_release.registry.versions import dvc_hashes_of_versions
    from gme_release.tracking.client import open_client, tracker_errors

    with tracker_errors(workspace):
        versions = dvc_hashes_of_versions(open_client(workspace), config.model_name)
    return [
        _ExpectedObject(md5, f"version {version} of {config.model_name}", in_cache=False) for version, md5 in versions
    ]


def _objects_of_releases(workspace: Path) -> Iterator[_ExpectedObject]:
    for path in sorted((workspace / "dist").glob(f"*/{RECORD}")):
        for dataset in read_record(path.parent).datasets:
            if dataset.dvc:
                yield _ExpectedObject(dataset.dvc, f"the release {path.parent.name}", in_cache=False)
