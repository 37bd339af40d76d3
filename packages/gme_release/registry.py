"""The model in MLflow: logged once per digest, one version per digest, aliases.

Each function first looks for what an earlier, perhaps killed process left and adopts it. The caller holds the
registry's lock and has an open gate in hand: nothing here judges.
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
from gme_release.model_files import ARTIFACT, is_whole, local_folder, weights_path
from gme_release.served_code import copy_code, requirements
from gme_release.tracking import BYTES, MODEL_DIGEST


class _TextConfig(BaseModel):
    model_config = ConfigDict(frozen=True)

    hidden_size: int | None = Field(None, ge=1)


class _ModelConfig(_TextConfig):
    text_config: _TextConfig | None = None


MODEL_PATH = "gme.model_path"
_MODEL_ID = "gme.model_id"  # the registry's own field comes back empty
_CODE = Path(__file__).with_name("pyfunc_model.py")


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
    if model.status != LoggedModelStatus.READY or not is_whole(model, digest):
        half_written = local_folder(model)
        if half_written is not None:
            shutil.rmtree(half_written, ignore_errors=True)
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
        tags={**tags, _MODEL_ID: model.model_id, **_place(model, workspace)},
    )


def bytes_of_versions(client: MlflowClient, name: str) -> list[tuple[str, str]]:
    """``(version, DVC's name of a tracked folder)`` for every folder that a registered version was made from."""
    return [
        (str(version.version), str(md5))
        for version in client.search_model_versions(f"name = '{name}'")
        for tag, md5 in version.tags.items()
        if tag.startswith(BYTES)
    ]


def logged_model_of(client: MlflowClient, version: ModelVersion) -> LoggedModel:
    """The logged model that a version was made from."""
    return client.get_logged_model(version.tags[_MODEL_ID])


def digest_of(version: ModelVersion) -> str:
    """Content digest of a version's model.

    Raises:
        FoundryError: It has none: another program registered it.
    """
    digest = version.tags.get(MODEL_DIGEST)
    if not digest:
        raise FoundryError(
            f"Version {version.version} of {version.name} was not registered by a pipeline: it has no tag "
            f"{MODEL_DIGEST}.",
            hint="Use a version that `gme pipeline` registered.",
        )
    return str(digest)


def _place(model: LoggedModel, workspace: Path) -> dict[str, str]:
    """Where the weights lie inside the workspace, so that one that was moved still finds them; empty if elsewhere."""
    home, path = local_folder(model), weights_path(model)
    if home is None or path is None or not home.is_relative_to(workspace.resolve()):
        return {}
    return {MODEL_PATH: (home / path).relative_to(workspace.resolve()).as_posix()}


def version_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version an alias points at; None if there is no such alias or model."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def numbered(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """A version by its number.

    Raises:
        FoundryError: There is none; names those there are.
    """
    found = {str(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
    if version not in found:
        known = ", ".join(sorted(found, key=int)) or "none"
        raise FoundryError(f"{name} has no version {version}.", hint=f"Versions: {known}.")
    return found[version]


def crown(client: MlflowClient, version: str, config: ReleaseConfig, expected: str | None) -> None:
    """Point the champion's alias at `version` and the previous one at the champion so far.

    In this order: a kill in between leaves the champion in place, and the next run does both again.

    `expected` is the champion that `version` was judged against, None if there was none.

    Raises:
        FoundryError: The champion is another by now, or the alias did not stay where it was put: somebody without the
            lock moves aliases.
    """
    name = config.model_name
    current = version_of(client, name, config.champion)
    if current is not None and str(current.version) == version:
        return
    if (None if current is None else str(current.version)) != expected:
        raise FoundryError(
            f"The champion of {name} changed while version {version} was judged.", hint="Run the same command again."
        )
    if current is not None:
        client.set_registered_model_alias(name, config.previous, str(current.version))
    client.set_registered_model_alias(name, config.champion, version)
    found = version_of(client, name, config.champion)
    if found is None or str(found.version) != version:
        raise FoundryError(
            f"The champion of {name} is {'gone' if found is None else f'version {found.version}'} right after version "
            f"{version} was made it.",
            hint="Let one process at a time promote, then run the same command again.",
        )


def _write_model(model: LoggedModel, folder: Path) -> None:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as code:
        # MLflow asks for an input example, which would run the model once more only to prove the signature.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.log_model(
            model_id=model.model_id,
            python_model=str(_CODE),
            artifacts={ARTIFACT: folder.resolve().as_uri()},  # MLflow reads a plain path as an address
            code_paths=copy_code(Path(code)),
            signature=_signature(folder),
            pip_requirements=requirements(),
        )


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
    raw = read_json(folder / "config.json", _ModelConfig)
    width = raw.text_config.hidden_size if raw.text_config else raw.hidden_size
    return -1 if width is None else width
