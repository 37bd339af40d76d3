"""Both stores of a workspace, checked: the DVC cache and the remote, from the records that name what must be in them.

Those are the pointers of the workspace, the registered versions of its model and the releases in ``dist/``. That a
store is sound in itself proves nothing: one that lost everything is. Knows where stores and records are, not how a
store is checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.redact import redact
from gme_release.config import ReleaseConfig
from gme_release.dvc_config import cache_folder, prepare, remote_url
from gme_release.locks import writer_lock
from gme_release.pointers import read_outputs
from gme_release.release.record import RECORD, read_record
from gme_release.scrub import Damage, examine, remove, store_at
from gme_release.settings import RecordSettings

_SUFFIX = ".dvc"
POINTERS = "pointers"
"""The place of what is wrong with the pointers themselves."""


@dataclass(frozen=True, slots=True)
class _Named:
    """An object that a record names, `who` that is, and whether the cache must have it too."""

    md5: str
    who: str
    cached: bool


def audit(workspace: Path, config: ReleaseConfig, *, repair: bool = False) -> dict[str, list[Damage]]:
    """What is damaged in cache and remote, by place; with `repair` what is there and damaged is removed.

    Raises:
        FoundryError: Nothing names an object, a store or a record can't be read, or another process writes and does not
            end.
    """
    bad_pointers, named = _pointers(workspace, config)
    if not named and not bad_pointers:
        raise FoundryError(
            f"Nothing to check: no pointer (*{_SUFFIX}) in {workspace.resolve()}, so nothing is under version there.",
            hint="Run `gme pipeline` first, or give its --workspace; pointers that were lost are restored from git.",
        )
    named += [*_registered(workspace, config), *_released(workspace)]
    with writer_lock(workspace, "dvc"):
        prepare(workspace, config)
        url = remote_url(workspace, config)
        stores = {"cache": cache_folder(workspace), f"remote {redact(url)}": store_at(workspace, url)}
        found = {POINTERS: bad_pointers} if bad_pointers else {}
        for place, store in stores.items():
            wanted = [one for one in named if one.cached or place != "cache"]
            lost = " (there is no such folder)" if isinstance(store, Path) and not store.is_dir() else ""
            told = {one.md5: f"{one.who} names {one.md5}, which is not in the {place}{lost}" for one in wanted[::-1]}
            found[place] = examine(store, told)
            if repair:
                remove(store, found[place])
    return found


def _pointers(workspace: Path, config: ReleaseConfig) -> tuple[list[Damage], list[_Named]]:
    """What is wrong with the pointers of the workspace, and what the others name."""
    files = sorted({path.relative_to(workspace).as_posix() for path in _pointer_files(workspace)})
    bad, named = [], []
    for name in files:
        try:
            outputs = read_outputs(workspace / name)
        except (OSError, FoundryError) as error:
            bad.append(Damage(name, f"{error}; restore it from git", present=False))
        else:
            named += [_Named(output.md5, name, cached=True) for output in outputs if output.is_stored]
    lost = [f"{folder}{_SUFFIX}" for folder in config.tracked if f"{folder}{_SUFFIX}" not in files] if files else []
    bad += [Damage(name, f"{name} is missing, though release.tracked names its folder", present=False) for name in lost]
    return bad, named


def _pointer_files(workspace: Path) -> Iterator[Path]:
    """Every pointer, those inside hidden folders and inside folders that are behind a pointer left out."""
    for home, folders, files in os.walk(workspace):
        yield from (Path(home) / name for name in files if name.endswith(_SUFFIX) and name != _SUFFIX)
        folders[:] = [name for name in folders if not name.startswith(".") and f"{name}{_SUFFIX}" not in files]


def _registered(workspace: Path, config: ReleaseConfig) -> list[_Named]:
    """What the versions of the model name; the cache may have given up older ones."""
    if not RecordSettings.from_environment().has_records(workspace):
        return []
    from gme_release.registry import bytes_of_versions
    from gme_release.tracking import explained, open_client

    with explained(workspace):
        versions = bytes_of_versions(open_client(workspace), config.model_name)
    return [_Named(md5, f"version {version} of {config.model_name}", cached=False) for version, md5 in versions]


def _released(workspace: Path) -> Iterator[_Named]:
    """What the releases in ``dist/`` name."""
    for path in sorted((workspace / "dist").glob(f"*/{RECORD}")):
        for dataset in read_record(path.parent).datasets:
            if dataset.dvc:
                yield _Named(dataset.dvc, f"the release {path.parent.name}", cached=False)
