"""Files of a logged model, wherever the tracker keeps them: looked at, fetched, checked against their digest.

Artifacts may lie in a folder, in a bucket or behind the tracking server; MLflow reads them all. Knows no alias.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import mlflow.artifacts
from mlflow.entities import LoggedModel
from pydantic import BaseModel, ConfigDict

from gme_data.errors import FoundryError
from gme_data.manifest import NAME, Manifest, damage, read_manifest
from gme_data.paths import BelowPath
from gme_data.structured import StructureError, read_yaml
from gme_data.urls import file_url_path

CACHE = Path("runs") / "models"
"""Where fetched models lie in a workspace, each in a folder named by its digest."""
ARTIFACT = "model"
_DESCRIPTION = "MLmodel"


class _Part(BaseModel):
    """A part of MLflow's description of a model; its further fields are MLflow's."""

    model_config = ConfigDict(frozen=True)


class _Artifact(_Part):
    path: BelowPath
    """Below the model's artifacts."""


class _Function(_Part):
    artifacts: dict[str, _Artifact]


class _Flavors(_Part):
    python_function: _Function


class _Description(_Part):
    flavors: _Flavors


def local_folder(model: LoggedModel) -> Path | None:
    """The folder of a logged model's artifacts; None where they are not on a disk of this machine."""
    if urlsplit(model.artifact_location).scheme not in ("file", ""):
        return None
    return file_url_path(model.artifact_location)


def weights_path(model: LoggedModel) -> str | None:
    """Where the safetensors folder is inside the artifacts; None if the model was never written to its end.

    Raises:
        FoundryError: MLflow's description of the model is damaged, or names a place outside of the artifacts.
    """
    if _DESCRIPTION not in _listing(model, ""):
        return None
    description = Path(mlflow.artifacts.download_artifacts(_uri(model, _DESCRIPTION)))
    # `Model.load` would read the path as an address, with what follows a "#" or "?" in it left out.
    found = read_yaml(description, _Description, hint="Run `gme pipeline` to record the model again.")
    artifacts = found.flavors.python_function.artifacts
    if ARTIFACT not in artifacts:
        raise StructureError(str(description), f"it has no artifact '{ARTIFACT}'")
    return artifacts[ARTIFACT].path


def is_whole(model: LoggedModel, digest: str) -> bool:
    """Whether every file of the model of `digest` is there: hashed on a local disk, elsewhere compared by size."""
    path = weights_path(model)
    if path is None:
        return False
    home = local_folder(model)
    if home is not None:
        return is_sound(home / path, digest)
    sizes = _listing(model, path)
    if NAME not in sizes:
        return False
    manifest = read_manifest(Path(mlflow.artifacts.download_artifacts(f"{_uri(model, path)}/{NAME}")).parent)
    return manifest is not None and manifest.content == digest and _sizes_match(manifest, sizes, model, path)


def is_sound(folder: Path, digest: str) -> bool:
    """Whether `folder` holds exactly the files that `digest` names."""
    manifest = read_manifest(folder)
    return manifest is not None and manifest.content == digest and not damage(folder, manifest)


def fetch(model: LoggedModel, digest: str, workspace: Path) -> Path:
    """The model's safetensors folder on this machine, every file hashed: from the cache, else downloaded into it.

    Raises:
        FoundryError: The artifacts are not those of `digest`.
    """
    folder = workspace / CACHE / digest[:16]
    if is_sound(folder, digest):
        return folder
    path = weights_path(model)
    if path is None:
        raise FoundryError(
            f"The files of model {digest[:12]} are not at {model.artifact_location}.",
            hint="Run `gme pipeline` to record the model again.",
        )
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        found = Path(mlflow.artifacts.download_artifacts(_uri(model, path), dst_path=str(part)))
        if not is_sound(found, digest):
            raise FoundryError(
                f"The files at {_uri(model, path)} are not those of model {digest[:12]}.",
                hint="Run `gme pipeline` to record the model again, or `gme rollback` to the one before.",
            )
        shutil.rmtree(folder, ignore_errors=True)
        found.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _uri(model: LoggedModel, path: str) -> str:
    return f"{model.artifact_location.rstrip('/')}/{path}"


def _listing(model: LoggedModel, path: str) -> dict[str, int]:
    """Size in bytes of each file right below `path` of the artifacts, by name."""
    entries = mlflow.artifacts.list_artifacts(_uri(model, path).rstrip("/"))
    return {Path(entry.path).name: int(entry.file_size or 0) for entry in entries if not entry.is_dir}


def _sizes_match(manifest: Manifest, top: dict[str, int], model: LoggedModel, path: str) -> bool:
    folders = {Path(entry.path).parent.as_posix() for entry in manifest.files} - {"."}
    sizes = {(folder, name): size for folder in folders for name, size in _listing(model, f"{path}/{folder}").items()}
    sizes |= {(".", name): size for name, size in top.items()}
    return all(
        sizes.get((Path(entry.path).parent.as_posix(), Path(entry.path).name)) == entry.bytes
        for entry in manifest.files
    )
