"""The model in MLflow: logged once per digest, one version per digest, aliases.

Each function first looks for what an earlier, perhaps killed process left and adopts it. The caller holds the
registry's lock and has an open gate in hand: nothing here judges.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from gme_data.manifest import damage, read_manifest
from gme_release.config import ReleaseConfig
from gme_release.tracking import MODEL_DIGEST

MODEL_PATH = "gme.model_path"
_CODE = Path(__file__).with_name("pyfunc_model.py")
_ARTIFACT = "model"


def ensure_logged_model(client: MlflowClient, run: Run, folder: Path, digest: str, name: str) -> LoggedModel:
    """The logged model of `digest`, ready. A half-written one of a killed process is written again in its place.

    Args:
        client: Client of the workspace's database.
        run: The run that made the model.
        folder: The model's files.
        digest: Content digest of `folder`.
        name: Name of the logged model.
    """
    experiment = run.info.experiment_id
    found = client.search_logged_models(
        [experiment], f"tags.`{MODEL_DIGEST}` = '{digest}'", order_by=[{"field_name": "creation_timestamp"}]
    )
    model = found[0] if found else _begin(client, run, digest, name)
    if model.status != LoggedModelStatus.READY or not _is_whole(model, digest):
        shutil.rmtree(_location(model), ignore_errors=True)
        _write_model(model, folder)
    return client.get_logged_model(model.model_id)


def link_model(client: MlflowClient, run: Run, model: LoggedModel) -> None:
    """Name the model as output of the run, once."""
    outputs = client.get_run(run.info.run_id).outputs
    if not any(output.model_id == model.model_id for output in (outputs.model_outputs if outputs else [])):
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])


def find_version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The version of exactly this content, if it was registered; the first, should there be several."""
    versions = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_DIGEST}` = '{digest}'")
    return min(versions, key=lambda version: int(version.version), default=None)


def create_version(
    client: MlflowClient, name: str, model: LoggedModel, run: Run, workspace: Path, tags: Mapping[str, str]
) -> ModelVersion:
    """Register `model` as the next version of `name`; version and tags are written in one transaction."""
    _ensure_registered_model(client, name)
    return client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run.info.run_id,
        model_id=model.model_id,
        tags={**tags, MODEL_PATH: weights_folder(model).relative_to(workspace.resolve()).as_posix()},
    )


def weights_folder(model: LoggedModel) -> Path:
    """The folder of safetensors inside a logged model."""
    location = _location(model)
    flavour: dict[str, Any] = Model.load(str(location)).flavors["python_function"]
    return location / str(flavour["artifacts"][_ARTIFACT]["path"])


def version_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version an alias points at; None if there is no such alias or model."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def crown(client: MlflowClient, version: str, config: ReleaseConfig) -> None:
    """Point the champion's alias at `version` and the previous one at the champion so far.

    In this order: a kill in between leaves the champion in place, and the next run does both again.
    """
    current = version_of(client, config.model_name, config.champion)
    if current is not None and str(current.version) == version:
        return
    if current is not None:
        client.set_registered_model_alias(config.model_name, config.previous, str(current.version))
    client.set_registered_model_alias(config.model_name, config.champion, version)


def _location(model: LoggedModel) -> Path:
    """Where the artifacts of a logged model lie; the workspace's experiments keep them on local disk."""
    return Path(url2pathname(urlsplit(model.artifact_location).path))


def _write_model(model: LoggedModel, folder: Path) -> None:
    with warnings.catch_warnings():
        # MLflow asks for an input example, which would run the model once more only to prove the signature.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.log_model(
            model_id=model.model_id,
            python_model=str(_CODE),
            artifacts={_ARTIFACT: str(folder)},
            signature=_signature(folder),
            pip_requirements=[f"gme-foundry=={importlib.metadata.version('gme-foundry')}"],
        )


def _is_whole(model: LoggedModel, digest: str) -> bool:
    if not (_location(model) / "MLmodel").is_file():
        return False
    folder = weights_folder(model)
    manifest = read_manifest(folder)
    return manifest is not None and manifest.content == digest and not damage(folder, manifest)


def _begin(client: MlflowClient, run: Run, digest: str, name: str) -> LoggedModel:
    return client.create_logged_model(
        run.info.experiment_id,
        name=name,
        source_run_id=run.info.run_id,
        tags={MODEL_DIGEST: digest},
        model_type="embedder",
    )


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)


def _signature(folder: Path) -> ModelSignature:
    """text, image and instruction, each optional -> float32 [n, d]."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "text", required=False),
        ColSpec(DataType.binary, "image", required=False),
        ColSpec(DataType.string, "instruction", required=False),
    ]
    embedding = TensorSpec(np.dtype("float32"), (-1, _hidden_size(folder)))
    return ModelSignature(inputs=Schema(columns), outputs=Schema([embedding]))


def _hidden_size(folder: Path) -> int:
    """Width of the embedding, from the model's ``config.json``; -1 (any) if it does not say."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(raw.get("text_config", raw).get("hidden_size", -1))
