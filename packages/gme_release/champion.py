"""From an alias to the model's files on this machine, checked before anyone loads them.

An alias that points nowhere, or at a version that was deleted, is as good as none. Moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.errors import FoundryError
from gme_data.manifest import require
from gme_release.settings import RecordSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        folder: Its safetensors folder, whose files were just hashed against the registered digest.
        digest: Content digest of the folder.
        run_id: The run that made it.
    """

    name: str
    version: str
    alias: str
    folder: Path
    digest: str
    run_id: str

    @property
    def label(self) -> str:
        """For people: ``gme-tiny v3 (champion)``."""
        return f"{self.name} v{self.version} ({self.alias})"


def resolve(workspace: Path, name: str, alias: str = "champion") -> RegisteredModel:
    """The version of `name` that `alias` points at.

    Raises:
        FoundryError: Nothing is registered under the alias, or the files are missing or not the registered ones.
    """
    found = find(workspace, name, alias)
    if found is None:
        raise FoundryError(
            f"No model is registered as '{name}@{alias}'.",
            hint="Run `gme pipeline`: it registers a model that passes; or `gme promote` with one of its versions.",
        )
    return found


def find(workspace: Path, name: str, alias: str = "champion") -> RegisteredModel | None:
    """As `resolve`; None if nothing is registered under the alias."""
    if not RecordSettings.from_environment().has_records(workspace):
        return None
    from gme_release.registry import version_of
    from gme_release.tracking import explained, open_client

    with explained(workspace):
        client = open_client(workspace)
        version = version_of(client, name, alias)
        if version is None:
            return None
        folder, digest = weights_of(client, version, workspace)
    return RegisteredModel(name, str(version.version), alias, folder, digest, str(version.run_id))


def weights_of(client: MlflowClient, version: ModelVersion, workspace: Path) -> tuple[Path, str]:
    """``(safetensors folder on this machine, its digest)`` of a version; every file has just been hashed.

    Raises:
        FoundryError: The files are missing or not the registered ones.
    """
    from gme_release.model_files import fetch
    from gme_release.registry import MODEL_PATH, digest_of, logged_model_of

    expected = digest_of(version)
    folder = workspace / version.tags.get(MODEL_PATH, "")
    if MODEL_PATH not in version.tags or not folder.is_dir():
        return fetch(logged_model_of(client, version), expected, workspace), expected
    found = require(folder, "pipeline").content
    if found != expected:
        raise FoundryError(
            f"{folder} is not what was registered as version {version.version}: found {found[:12]}, "
            f"expected {expected[:12]}.",
            hint=f"Delete {folder.parents[1]} and run `gme pipeline` to record the model again.",
        )
    return folder, found
