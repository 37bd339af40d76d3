"""Finds the model's files behind an alias on this machine; they are hashed before anyone loads them.

An alias that points nowhere, or at a version that was deleted, counts as no alias. Moves no alias.
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
        folder: Safetensors folder, whose files were just hashed against the registered digest.
        digest: Content digest of the folder.
        run_id: The run that made the model.
    """

    name: str
    version: str
    alias: str
    folder: Path
    digest: str
    run_id: str

    @property
    def label(self) -> str:
        """Returns the name for people, such as ``gme-tiny v3 (champion)``."""
        return f"{self.name} v{self.version} ({self.alias})"


def resolve_model(workspace: Path, name: str, alias: str = "champion") -> RegisteredModel:
    """Returns the version of `name` that `alias` points at.

    Raises:
        FoundryError: Nothing is registered under the alias, or the files are missing or not the registered ones.
    """
    model = find_model(workspace, name, alias)
    if model is None:
        raise FoundryError(
            f"No model is registered as '{name}@{alias}'.",
            hint="Run `gme pipeline`: it registers a model that passes; or `gme promote` with one of its versions.",
        )
    return model


def find_model(workspace: Path, name: str, alias: str = "champion") -> RegisteredModel | None:
    """Returns the same as `resolve_model`, or None if nothing is registered under the alias."""
    if not RecordSettings.from_environment().has_records(workspace):
        return None
    from gme_release.registry.versions import version_by_alias
    from gme_release.tracking.client import open_client, tracker_errors

    with tracker_errors(workspace):
        client = open_client(workspace)
        version = version_by_alias(client, name, alias)
        if version is None:
            return None
        folder, digest = local_weights(client, version, workspace)
    return RegisteredModel(name, str(version.version), alias, folder, digest, str(version.run_id))


def local_weights(client: MlflowClient, version: ModelVersion, workspace: Path) -> tuple[Path, str]:
    """Returns ``(safetensors folder on this machine, its digest)`` of a version, after hashing every file.

    Raises:
        FoundryError: The files are missing or not the registered ones.
    """
    from gme_release.registry.model_files import download_model
    from gme_release.registry.versions import MODEL_PATH, digest_of, logged_model_of

    expected = digest_of(version)
    folder = workspace / version.tags.get(MODEL_PATH, "")
    # Registered from another machine, or deleted here: the tracker has the files.
    if MODEL_PATH not in version.tags or not folder.is_dir():
        return download_model(logged_model_of(client, version), expected, workspace), expected
    digest = require(folder, "pipeline").content
    if digest != expected:
        raise FoundryError(
            f"{folder} is not what was registered as version {version.version}: found {digest[:12]}, "
            f"expected {expected[:12]}.",
            hint=f"Delete {folder.parents[1]} and run `gme pipeline` to record the model again.",
        )
    return folder, digest
