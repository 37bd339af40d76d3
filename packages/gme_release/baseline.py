"""What the champion scored: kept with its run at registration, read back when the next model is judged.

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
from gme_release.query_scores import SUMMARY, ModelScores, read_scores, scores_of, write_scores
from gme_release.records import RunFacts
from gme_release.registry import version_of
from gme_release.tracking import MODEL_DIGEST

_HOME = "evaluation"


def keep_scores(client: MlflowClient, run: Run, facts: RunFacts) -> None:
    """Log what the run's evaluation found, per query. May be repeated."""
    with tempfile.TemporaryDirectory() as folder:
        write_scores(Path(folder), scores_of(facts))
        client.log_artifacts(run.info.run_id, folder, _HOME)


def find_baseline(client: MlflowClient, config: ReleaseConfig) -> ModelVersion | None:
    """What a model is compared with: the champion, else, if its alias points nowhere, the champion before it."""
    name = config.model_name
    return version_of(client, name, config.champion) or version_of(client, name, config.previous)


def read_baseline(client: MlflowClient, version: ModelVersion) -> ModelScores:
    """What a version scored. One that was recorded without it, by an older release, has no task to compare on.

    Raises:
        FoundryError: Its record is damaged, or is of another model.
    """
    label, digest, run_id = f"version {version.version}", version.tags.get(MODEL_DIGEST, ""), str(version.run_id)
    if not any(Path(entry.path).name == SUMMARY for entry in client.list_artifacts(run_id, _HOME)):
        return ModelScores(label, digest, "", {})
    with tempfile.TemporaryDirectory() as folder:
        found = read_scores(Path(client.download_artifacts(run_id, _HOME, folder)), label)
    if found.model != digest:
        raise FoundryError(f"The scores kept with {label} are of model {found.model[:12]}, not of {digest[:12]}.")
    return found
