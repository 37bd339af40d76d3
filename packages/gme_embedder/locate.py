"""From what a user calls a model to a folder.

A local path is taken as it is, a model logged to MLflow by the weights it carries, a hub name through the local cache.
Only configuration, tokenizer and safetensors are fetched: no code and no pickle.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gme_data.errors import FoundryError

_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
_FILES = ("*.json", "*.safetensors")
_MLFLOW = "MLmodel"


def locate(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a model.

    Args:
        name: A folder, which may be that of a model logged to MLflow, or ``owner/name`` on the Hugging Face hub.
        revision: Branch, tag or commit on the hub.

    Raises:
        FoundryError: No such folder or model on the hub, or the hub is out of reach and nothing is cached.
    """
    folder = Path(name)
    if (folder / _MLFLOW).is_file():
        return _inside_mlflow(folder)
    if folder.is_dir() or not _HUB_NAME.match(str(name)):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise FoundryError(
            f"No folder '{name}' here, and no model of this name came from the hub: {type(error).__name__}.",
            hint="Check the name; a private model needs HF_TOKEN, a machine without network needs a downloaded folder.",
        ) from error


def _inside_mlflow(folder: Path) -> Path:
    """The weights that a logged model carries as its artifact ``model``."""
    try:
        described = yaml.safe_load((folder / _MLFLOW).read_text(encoding="utf-8"))
        return folder / str(described["flavors"]["python_function"]["artifacts"]["model"]["path"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise FoundryError(
            f"{folder / _MLFLOW} describes no model with an artifact 'model'.",
            hint="Give a model that GME Foundry logged, or the folder of its weights.",
        ) from error
