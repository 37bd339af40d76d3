"""The connection to MLflow: its database or server, its tables, its experiments, and its errors as `TrackerError`.

Knows how an experiment is described to people, but no run and no model.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gme_data import environment

environment.set_default_env()  # before MLflow is imported, which reads its switches at import
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Our sender retries a server that is down while the work goes on; MLflow's own retries would block for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient, set_tracking_uri  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from requests.exceptions import RequestException  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

from gme_data.urls import sqlite_url  # noqa: E402
from gme_release.errors import TrackerError, one_line  # noqa: E402
from gme_release.settings import RecordSettings, local_database  # noqa: E402
from gme_release.tracking.schema import require_schema  # noqa: E402

_EXPERIMENT_NOTE = """Runs of the weekly pipeline: passages and pictures to a registered multimodal embedder.

A **pipeline run** holds the whole configuration, the scores, the gate's verdict and the report; unfold it to see its
**steps**, each with its own configuration, curves and plots. `Datasets used` names the bytes by their DVC digests.
Compare runs by `score`, the mean over all tasks; the model that a run ended with is under `Models`.
"""


def open_client(workspace: Path) -> MlflowClient:
    """Returns a client of the tracker that the environment names, else of the workspace's own database.

    An empty or missing database gets its tables. MLflow's tracking URI is set for this process.

    Raises:
        FoundryError: The database is of another version or program; nothing was changed.
        SQLAlchemyError: The database can't be reached; see `tracker_errors`.
    """
    # Both log every migration of a new database.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = RecordSettings.from_environment()
    uri = settings.tracking_uri(workspace)
    path = local_database(workspace).resolve()
    if settings.mlflow_uri is None and not path.exists():
        _create_database(path)
    require_schema(uri)
    set_tracking_uri(uri)
    return MlflowClient(uri, registry_uri=uri)


@contextmanager
def tracker_errors(workspace: Path) -> Iterator[None]:
    """Turns errors of MLflow or its database (a full disk, a damaged file, no answer) into a `TrackerError`."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, RequestException) as error:
        settings = RecordSettings.from_environment()
        where = local_database(workspace) if settings.mlflow_uri is None else settings.tracking_uri(workspace)
        raise TrackerError(
            f"The records in {where} could not be read or written: {one_line(error)}",
            hint="Mend the cause (is it running? disk space, permissions) and run the same command again.",
            exit_code=1,
        ) from error


def get_or_create_experiment(client: MlflowClient, workspace: Path, name: str) -> str:
    """Returns the id of the experiment `name`; a new one keeps its artifacts where the settings say."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = RecordSettings.from_environment().artifact_location(workspace, name)
    tags = {"mlflow.note.content": _EXPERIMENT_NOTE, "mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=location, tags=tags))


def _create_database(path: Path) -> None:
    """Makes the tables in a temporary file and renames it, so that a kill during the migrations leaves no database."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    MlflowClient(sqlite_url(part)).search_experiments()
    part.rename(path)
