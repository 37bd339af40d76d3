"""The model in MLflow: one logged model and one version for each content digest, and aliases.

Each function first looks for what an earlier process, which may have been killed, left, and adopts it. The caller holds
the registry's lock, and has found the gate open.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from pydantic import BaseModel, ConfigDict, Field

from gme_data.errors import FoundryError
from gme_data.structured import read_json
from gme_release.config import ReleaseConfig
from gme_release.registry.model_files import ARTIFACT, artifact_folder, is_complete, weights_path
from gme_release.registry.served_code import copy_code, requirements
from gme_release.tracking.tags import BYTES, MODEL_DIGEST


class _TextConfig(BaseModel):
    model_config = ConfigDict(frozen=True)

    hidden_size: int | None = Field(None, ge=1)


class _HiddenSizes(_TextConfig):
    """The hidden size in a model's ``config.json``, which a vision-language model nests in ``text_config``."""

    text_config: _TextConfig | None = None


MODEL_PATH = "gme.model_path"
"""Tag of a version: path of its weights, relative to the workspace."""
_MODEL_ID = "gme.model_id"
"""Tag of a version: id of its logged model. MLflow's own field comes back empty from a search."""
_CODE = Path(__file__).with_name("pyfunc_model.py")


def ensure_logged_model(client: MlflowClient, run: Run, folder: Path, digest: str, name: str) -> LoggedModel:
    """Returns the logged model of `digest`, complete. One that a killed process left incomplete is written again.

    Args:
        client: Client of the workspace's tracker.
        run: The run that made the model.
        folder: The model's files.
        digest: Content digest of `folder`.
        name: Name of the logged model.
    """
    experiment = run.info.experiment_id
    models = client.search_logged_models(
        [experiment], f"tags.`{MODEL_DIGEST}` = '{digest}'", order_by=[{"field_name": "creation_timestamp"}]
    )
    model = (
        models[0]
        if models
        else client.create_logged_model(
            experiment,
            name=name,
            source_run_id=run.info.run_id,
            tags={MODEL_DIGEST: digest},
            model_type="embedder",
        )
    )
    # A model that was written completely may have lost files since.
    if model.status != LoggedModelStatus.READY or not is_complete(model, digest):
        incomplete = artifact_folder(model)
        if incomplete is not None:
            shutil.rmtree(incomplete, ignore_errors=True)
        _write_model(model, folder)
    return client.get_logged_model(model.model_id)


def link_model(client: MlflowClient, run: Run, model: LoggedModel) -> None:
    """Names the model as an output of the run, once."""
    outputs = client.get_run(run.info.run_id).outputs
    if not any(output.model_id == model.model_id for output in (outputs.model_outputs if outputs else [])):
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])


def version_by_digest(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """Returns the version of exactly this content, the first if there are several; None if it was not registered."""
    versions = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_DIGEST}` = '{digest}'")
    return min(versions, key=lambda version: int(version.version), default=None)


def create_version(
    client: MlflowClient, name: str, model: LoggedModel, run: Run, workspace: Path, tags: Mapping[str, str]
) -> ModelVersion:
    """Registers `model` as the next version of `name`; MLflow writes version and tags in one transaction."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run.info.run_id,
        model_id=model.model_id,
        tags={**tags, _MODEL_ID: model.model_id, **_path_tag(model, workspace)},
    )


def dvc_hashes_of_versions(client: MlflowClient, name: str) -> list[tuple[str, str]]:
    """Returns ``(version, DVC's name of a tracked folder)`` for every folder that a version was made from."""
    return [
        (str(version.version), str(md5))
        for version in client.search_model_versions(f"name = '{name}'")
        for tag, md5 in version.tags.items()
        if tag.startswith(BYTES)
    ]


def logged_model_of(client: MlflowClient, version: ModelVersion) -> LoggedModel:
    """Returns the logged model behind a version."""
    return client.get_logged_model(version.tags[_MODEL_ID])


def digest_of(version: ModelVersion) -> str:
    """Returns the content digest of a version's model.

    Raises:
        FoundryError: The version has none, because another program registered it.
    """
    digest = version.tags.get(MODEL_DIGEST)
    if not digest:
        raise FoundryError(
            f"Version {version.version} of {version.name} was not registered by a pipeline: it has no tag "
            f"{MODEL_DIGEST}.",
            hint="Use a version that `gme pipeline` registered.",
        )
    return str(digest)


def _path_tag(model: LoggedModel, workspace: Path) -> dict[str, str]:
    """Returns the tag `MODEL_PATH`, by which a moved workspace finds its weights; empty if they lie outside of it."""
    folder, path = artifact_folder(model), weights_path(model)
    if folder is None or path is None or not folder.is_relative_to(workspace.resolve()):
        return {}
    return {MODEL_PATH: (folder / path).relative_to(workspace.resolve()).as_posix()}


def version_by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Returns the version that an alias points at; None if there is no such alias or model."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def get_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """Returns a version by its number.

    Raises:
        FoundryError: There is none; the hint names those that exist.
    """
    versions = {str(entry.version): entry for entry in client.search_model_versions(f"name = '{name}'")}
    if version not in versions:
        numbers = ", ".join(sorted(versions, key=int)) or "none"
        raise FoundryError(f"{name} has no version {version}.", hint=f"Versions: {numbers}.")
    return versions[version]


def set_champion_alias(client: MlflowClient, version: str, config: ReleaseConfig, expected: str | None) -> None:
    """Points the alias of the previous champion at the champion so far, then the champion's alias at `version`.

    The order matters: a kill in between leaves the champion in place, and the next run does both again.

    Args:
        client: Client of the tracker.
        version: The new champion.
        config: Names of the model and its aliases.
        expected: The champion that `version` was compared with; None if there was none.

    Raises:
        FoundryError: The champion has changed meanwhile, or the alias was moved right afterwards: another process moves
            aliases without holding the lock.
    """
    name = config.model_name
    current = version_by_alias(client, name, config.champion)
    if current is not None and str(current.version) == version:
        return
    if (None if current is None else str(current.version)) != expected:
        raise FoundryError(
            f"The champion of {name} changed while version {version} was judged.", hint="Run the same command again."
        )
    if current is not None:
        client.set_registered_model_alias(name, config.previous, str(current.version))
    client.set_registered_model_alias(name, config.champion, version)
    champion = version_by_alias(client, name, config.champion)
    if champion is None or str(champion.version) != version:
        raise FoundryError(
            f"The champion of {name} is {'gone' if champion is None else f'version {champion.version}'} right after "
            f"version {version} was made it.",
            hint="Let one process at a time promote, then run the same command again.",
        )


def _write_model(model: LoggedModel, folder: Path) -> None:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as code:
        # MLflow warns that there is no input example; with one it would run the model to check the signature.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.log_model(
            model_id=model.model_id,
            python_model=str(_CODE),
            artifacts={ARTIFACT: folder.resolve().as_uri()},  # MLflow would parse a plain path as a URI
            code_paths=copy_code(Path(code)),
            signature=_signature(folder),
            pip_requirements=requirements(),
        )


def _signature(folder: Path) -> ModelSignature:
    """Returns the signature: optional columns text, image and instruction to float32 [n, d]."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "text", required=False),
        ColSpec(DataType.binary, "image", required=False),
        ColSpec(DataType.string, "instruction", required=False),
    ]
    embedding = TensorSpec(np.dtype("float32"), (-1, _hidden_size(folder)))
    return ModelSignature(inputs=Schema(columns), outputs=Schema([embedding]))


def _hidden_size(folder: Path) -> int:
    """Returns the embedding's dimension d by its ``config.json``; -1, which means any, if it has none."""
    config = read_json(folder / "config.json", _HiddenSizes)
    size = config.text_config.hidden_size if config.text_config else config.hidden_size
    return -1 if size is None else size
