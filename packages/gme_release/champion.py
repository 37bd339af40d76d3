"""From an alias to the model's files, checked before anyone loads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.manifest import require
from gme_release.settings import RecordSettings


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
            hint="Run `gme pipeline`: it registers a model that passes.",
        )
    return found


def find(workspace: Path, name: str, alias: str = "champion") -> RegisteredModel | None:
    """As `resolve`; None if nothing is registered under the alias."""
    if not RecordSettings.from_environment().has_records(workspace):
        return None
    from gme_release.registry import MODEL_PATH, version_of
    from gme_release.tracking import MODEL_DIGEST, explained, open_client

    with explained(workspace):
        version = version_of(open_client(workspace), name, alias)
    if version is None:
        return None
    folder = workspace / version.tags[MODEL_PATH]
    found = require(folder, "pipeline").content
    if found != version.tags[MODEL_DIGEST]:
        raise FoundryError(
            f"{folder} is not what was registered as version {version.version}: found {found[:12]}, "
            f"expected {version.tags[MODEL_DIGEST][:12]}.",
            hint=f"Delete {folder.parents[1]} and run `gme pipeline` to record the model again.",
        )
    return RegisteredModel(name, str(version.version), alias, folder, found, str(version.run_id))
