"""The champion's scores: logged with its run at registration, read back when the next model is compared with it.

The champion is read inside the registry's lock, so that a verdict is about the champion that is then replaced.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.gate.query_scores import SUMMARY, ModelScores, read_scores, scores_of, write_scores
from gme_release.registry.versions import version_by_alias
from gme_release.run_facts import RunFacts
from gme_release.tracking.tags import MODEL_DIGEST

_ARTIFACTS = "evaluation"
"""Folder of the scores among the artifacts of a run."""


def log_scores(client: MlflowClient, run: Run, facts: RunFacts) -> None:
    """Logs the scores of the run's evaluation, per query. It may be repeated."""
    with tempfile.TemporaryDirectory() as folder:
        write_scores(Path(folder), scores_of(facts))
        client.log_artifacts(run.info.run_id, folder, _ARTIFACTS)


def find_baseline(client: MlflowClient, config: ReleaseConfig) -> ModelVersion | None:
    """Returns the version to compare with: the champion, else, if its alias points nowhere, the previous champion."""
    name = config.model_name
    return version_by_alias(client, name, config.champion) or version_by_alias(client, name, config.previous)


def read_baseline(client: MlflowClient, version: ModelVersion) -> ModelScores:
    """Returns the scores of a version; a version that an earlier release recorded without them has no task.

    Raises:
        FoundryError: The record is damaged, or is of another model.
    """
    label, digest, run_id = f"version {version.version}", version.tags.get(MODEL_DIGEST, ""), str(version.run_id)
    if not any(Path(entry.path).name == SUMMARY for entry in client.list_artifacts(run_id, _ARTIFACTS)):
        return ModelScores(label, digest, "", {})
    with tempfile.TemporaryDirectory() as folder:
        scores = read_scores(Path(client.download_artifacts(run_id, _ARTIFACTS, folder)), label)
    # The artifacts of a run can be replaced; the tag of a version is what was registered.
    if scores.model != digest:
        raise FoundryError(f"The scores kept with {label} are of model {scores.model[:12]}, not of {digest[:12]}.")
    return scores
