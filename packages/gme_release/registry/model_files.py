"""Files of a logged model, wherever the tracker keeps them: listed, downloaded, checked against their digest.

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
"""Folder of downloaded models, below the workspace; each has a folder named by its digest."""
ARTIFACT = "model"
"""Name of the artifact that is the safetensors folder."""
_DESCRIPTION = "MLmodel"
"""MLflow's description of a model, among its artifacts."""


class _DescriptionPart(BaseModel):
    """A part of MLflow's description of a model; further fields of MLflow's are ignored."""

    model_config = ConfigDict(frozen=True)


class _Artifact(_DescriptionPart):
    path: BelowPath
    """Path relative to the model's artifacts."""


class _Function(_DescriptionPart):
    artifacts: dict[str, _Artifact]


class _Flavors(_DescriptionPart):
    python_function: _Function


class _Description(_DescriptionPart):
    flavors: _Flavors


def artifact_folder(model: LoggedModel) -> Path | None:
    """Returns the folder of a logged model's artifacts; None where they are not on a disk of this machine."""
    if urlsplit(model.artifact_location).scheme not in ("file", ""):
        return None
    return file_url_path(model.artifact_location)


def weights_path(model: LoggedModel) -> str | None:
    """Returns the path of the safetensors folder among the artifacts; None if the model was not written completely.

    Raises:
        FoundryError: MLflow's description of the model is damaged, or names a path outside of the artifacts.
    """
    if _DESCRIPTION not in _listing(model, ""):
        return None
    description = Path(mlflow.artifacts.download_artifacts(_uri(model, _DESCRIPTION)))
    # Not read by MLflow's `Model.load`, which takes the path for a URI and drops what follows a "#" or "?".
    parsed = read_yaml(description, _Description, hint="Run `gme pipeline` to record the model again.")
    artifacts = parsed.flavors.python_function.artifacts
    if ARTIFACT not in artifacts:
        raise StructureError(str(description), f"it has no artifact '{ARTIFACT}'")
    return artifacts[ARTIFACT].path


def is_complete(model: LoggedModel, digest: str) -> bool:
    """Returns whether every file of the model is there: by its hash on a local disk, elsewhere by its size."""
    path = weights_path(model)
    if path is None:
        return False
    folder = artifact_folder(model)
    if folder is not None:
        return is_sound(folder / path, digest)
    # Hashing would download the model from a bucket or server, so only names and sizes are compared there.
    sizes = _listing(model, path)
    if NAME not in sizes:
        return False
    manifest = read_manifest(Path(mlflow.artifacts.download_artifacts(f"{_uri(model, path)}/{NAME}")).parent)
    return manifest is not None and manifest.content == digest and _sizes_match(manifest, sizes, model, path)


def is_sound(folder: Path, digest: str) -> bool:
    """Returns whether `folder` holds exactly the files of the content digest `digest`."""
    manifest = read_manifest(folder)
    return manifest is not None and manifest.content == digest and not damage(folder, manifest)


def download_model(model: LoggedModel, digest: str, workspace: Path) -> Path:
    """Returns the model's safetensors folder on this machine, every file hashed, and downloads it if needed.

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
    # Into a folder of this process, and renamed when it is complete: other processes find all files or none.
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        downloaded = Path(mlflow.artifacts.download_artifacts(_uri(model, path), dst_path=str(part)))
        if not is_sound(downloaded, digest):
            raise FoundryError(
                f"The files at {_uri(model, path)} are not those of model {digest[:12]}.",
                hint="Run `gme pipeline` to record the model again, or `gme rollback` to the one before.",
            )
        shutil.rmtree(folder, ignore_errors=True)
        downloaded.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _uri(model: LoggedModel, path: str) -> str:
    return f"{model.artifact_location.rstrip('/')}/{path}"


def _listing(model: LoggedModel, path: str) -> dict[str, int]:
    """Returns the size in bytes of each file directly below `path` of the artifacts, by name."""
    entries = mlflow.artifacts.list_artifacts(_uri(model, path).rstrip("/"))
    return {Path(entry.path).name: int(entry.file_size or 0) for entry in entries if not entry.is_dir}


def _sizes_match(manifest: Manifest, top: dict[str, int], model: LoggedModel, path: str) -> bool:
    """Returns whether all files of the manifest have their size; `top` has the sizes of files without a folder."""
    folders = {Path(entry.path).parent.as_posix() for entry in manifest.files} - {"."}
    sizes = {(folder, name): size for folder in folders for name, size in _listing(model, f"{path}/{folder}").items()}
    sizes |= {(".", name): size for name, size in top.items()}
    return all(
        sizes.get((Path(entry.path).parent.as_posix(), Path(entry.path).name)) == entry.bytes
        for entry in manifest.files
    )
