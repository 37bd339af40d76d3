"""Aliases moved by hand (`gme promote VERSION`, `gme rollback`), only to versions whose files are undamaged.

The registry's lock is held, as for every move of an alias. There is no gate here: a version was registered because it
passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.locks import writer_lock
from gme_release.settings import RecordSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True, slots=True)
class Promotion:
    """Where the aliases point now; `changed` is False if they already pointed there."""

    name: str
    champion: str
    previous: str | None
    changed: bool


def promote(workspace: Path, config: ReleaseConfig, version: str) -> Promotion:
    """Makes `version` the champion, and the champion so far the previous one.

    Raises:
        FoundryError: There is no such version, or its files are missing or damaged. No alias is moved then.
    """
    RecordSettings.from_environment().require_records(workspace)
    from gme_release.registry.versions import get_version
    from gme_release.tracking.client import open_client, tracker_errors

    with writer_lock(workspace, "registry"), tracker_errors(workspace):
        client = open_client(workspace)
        get_version(client, config.model_name, version)
        return _promote_version(client, workspace, config, version)


def roll_back(workspace: Path, config: ReleaseConfig) -> Promotion:
    """Swaps the champion and the previous champion; a second call undoes the first.

    Raises:
        FoundryError: There is no previous champion, it was deleted, or its files are damaged. No alias is moved then.
    """
    RecordSettings.from_environment().require_records(workspace)
    from gme_release.registry.versions import version_by_alias
    from gme_release.tracking.client import open_client, tracker_errors

    with writer_lock(workspace, "registry"), tracker_errors(workspace):
        client = open_client(workspace)
        previous = version_by_alias(client, config.model_name, config.previous)
        if previous is None:
            raise FoundryError(
                f"There is nothing to go back to: {config.model_name}@{config.previous} points at no version.",
                hint="`gme promote VERSION` makes any registered version the champion.",
            )
        return _promote_version(client, workspace, config, str(previous.version))


def _promote_version(client: MlflowClient, workspace: Path, config: ReleaseConfig, version: str) -> Promotion:
    from gme_release.registry.champion import local_weights
    from gme_release.registry.versions import get_version, set_champion_alias, version_by_alias

    # Hashed before any alias moves: a champion that can't be loaded would stop every server that loads it.
    local_weights(client, get_version(client, config.model_name, version), workspace)
    before = version_by_alias(client, config.model_name, config.champion)
    set_champion_alias(client, version, config, None if before is None else str(before.version))
    previous = version_by_alias(client, config.model_name, config.previous)
    return Promotion(
        config.model_name,
        version,
        None if previous is None else str(previous.version),
        changed=before is None or str(before.version) != version,
    )
