"""Both stores of a workspace, checked: the DVC cache and the remote. Knows where they are, not how they are checked."""

from __future__ import annotations

from pathlib import Path

from gme_release.config import ReleaseConfig
from gme_release.locks import writer_lock
from gme_release.remote import remote_name
from gme_release.scrub import Damage, examine, remove, store_at
from gme_release.settings import mask
from gme_release.versioning import CACHE, prepare, remote_url


def audit(workspace: Path, config: ReleaseConfig, *, repair: bool = False) -> dict[str, list[Damage]]:
    """What is damaged in cache and remote, by place; with `repair` it is removed.

    Raises:
        FoundryError: A store can't be read, or another process writes and does not end.
    """
    with writer_lock(workspace, "dvc"):
        prepare(workspace, config)
        url = remote_url(workspace, remote_name(config))
        places = {"cache": workspace / CACHE, f"remote {mask(url)}": store_at(workspace, url)}
        found = {place: examine(store) for place, store in places.items()}
        if repair:
            for place, damage in found.items():
                remove(places[place], damage)
    return found
