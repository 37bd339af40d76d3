"""Aliases moved by hand: `gme promote VERSION`, `gme rollback`. Only to versions whose files are whole.

Under the registry's lock, like every move of an alias. Judges nothing: a version is there because it passed the gate.
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
    """Where the aliases point now; `changed` is False if they did before."""

    name: str
    champion: str
    previous: str | None
    changed: bool


def promote(workspace: Path, config: ReleaseConfig, version: str) -> Promotion:
    """Make `version` the champion, and the champion so far the previous one.

    Raises:
        FoundryError: There is no such version, or its files are missing or damaged. No alias was moved.
    """
    RecordSettings.from_environment().require_records(workspace)
    from gme_release.registry import numbered
    from gme_release.tracking import explained, open_client

    with writer_lock(workspace, "registry"), explained(workspace):
        client = open_client(workspace)
        numbered(client, config.model_name, version)
        return _crown(client, workspace, config, version)


def roll_back(workspace: Path, config: ReleaseConfig) -> Promotion:
    """Make the previous champion the champion again, and the present one the previous: a second call undoes it.

    Raises:
        FoundryError: There is no previous one, it was deleted, or its files are damaged. No alias was moved.
    """
    RecordSettings.from_environment().require_records(workspace)
    from gme_release.registry import version_of
    from gme_release.tracking import explained, open_client

    with writer_lock(workspace, "registry"), explained(workspace):
        client = open_client(workspace)
        previous = version_of(client, config.model_name, config.previous)
        if previous is None:
            raise FoundryError(
                f"There is nothing to go back to: {config.model_name}@{config.previous} points at no version.",
                hint="`gme promote VERSION` makes any registered version the champion.",
            )
        return _crown(client, workspace, config, str(previous.version))


def _crown(client: MlflowClient, workspace: Path, config: ReleaseConfig, version: str) -> Promotion:
    from gme_release.champion import weights_of
    from gme_release.registry import crown, numbered, version_of

    weights_of(client, numbered(client, config.model_name, version), workspace)
    before = version_of(client, config.model_name, config.champion)
    crown(client, version, config, None if before is None else str(before.version))
    previous = version_of(client, config.model_name, config.previous)
    return Promotion(
        config.model_name,
        version,
        None if previous is None else str(previous.version),
        changed=before is None or str(before.version) != version,
    )
