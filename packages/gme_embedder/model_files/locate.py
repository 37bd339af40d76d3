"""The folder of a model, from the name that a user gives it.

A local path is taken as it is, a model logged to MLflow is resolved to its weights, a name on the hub is fetched
through the local cache. Only configuration, tokenizer and safetensors are fetched: no code and no pickle.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gme_data.errors import FoundryError
from gme_data.structured import StructureError, read_yaml
from gme_embedder.model_files.family import refuse_other_name

_HUB_NAME = re.compile(r"^(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$")
_SNAPSHOT = re.compile(r"models--[^/]+/snapshots/(?P<commit>[0-9a-f]{40})$")
_FETCHED = ("*.json", "*.safetensors")
_MLFLOW = "MLmodel"
_MAX_SHOWN = 80


def locate(name: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a model.

    Args:
        name: A folder, which may be that of a model logged to MLflow, or ``owner/name`` on the Hugging Face hub, with
            ``@revision`` appended if needed.
        revision: Branch, tag or commit on the hub.

    Raises:
        FoundryError: No such folder or model on the hub, a name of another family than GME, two revisions, or the hub
            is out of reach and nothing is cached.
    """
    folder = _valid_path(Path(name))
    if (folder / _MLFLOW).is_file():
        return _mlflow_weights(folder)
    on_hub = _HUB_NAME.match(str(name))
    if folder.is_dir() or on_hub is None:
        return folder
    if revision and on_hub["revision"]:
        raise FoundryError(f"Two revisions of {name}: the name has one, and '{revision}'.", hint="Give one of them.")
    refuse_other_name(on_hub["name"])
    # Imported here, since a local folder does not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        revision = revision or on_hub["revision"]
        return Path(snapshot_download(on_hub["name"], revision=revision, allow_patterns=list(_FETCHED)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise FoundryError(
            f"No folder '{name}' here, and no model of this name came from the hub: {type(error).__name__}.",
            hint="Check the name; a private model needs HF_TOKEN, a machine without network needs a downloaded folder.",
        ) from error


def hub_commit(folder: Path) -> str | None:
    """Returns the commit of a snapshot in the cache of the hub; None for any other folder."""
    match = _SNAPSHOT.search(folder.as_posix())
    return match["commit"] if match else None


def _mlflow_weights(folder: Path) -> Path:
    """Returns the weights that a logged model has as its artifact ``model``."""
    hint = "Give a model that GME Foundry logged, or the folder of its weights."
    try:
        described = read_yaml(folder / _MLFLOW, dict[str, Any])
        weights = Path(described["flavors"]["python_function"]["artifacts"]["model"]["path"])
    except (StructureError, KeyError, TypeError) as error:
        raise FoundryError(f"{folder / _MLFLOW} describes no model with an artifact 'model'.", hint=hint) from error
    if weights.is_absolute() or ".." in weights.parts:
        raise FoundryError(f"{folder / _MLFLOW} names the weights {weights}, outside of its folder.", hint=hint)
    return _valid_path(folder / weights)


def _valid_path(folder: Path) -> Path:
    """Returns a path that may exist or not; refuses one that can't: a name that is too long, or has a NUL."""
    try:
        (folder / _MLFLOW).lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FoundryError(f"No model has the name {str(folder)[:_MAX_SHOWN]!r}: {reason}.") from error
    return folder
