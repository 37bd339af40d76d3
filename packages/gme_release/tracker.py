"""The connection to MLflow: which database or server, its tables, its experiments, and errors in our words.

Knows what an experiment is for people, but no run and no model.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gme_data import environment

environment.set_default_env()  # before MLflow is imported: it reads its switches at import
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A server that is down is asked again by us, who go on with the work meanwhile; MLflow alone would try for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient, set_tracking_uri  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from requests.exceptions import RequestException  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

from gme_data.urls import sqlite_url  # noqa: E402
from gme_release.schema import require_schema  # noqa: E402
from gme_release.settings import RecordSettings, local_database  # noqa: E402
from gme_release.trouble import TrackerError, told  # noqa: E402

DESCRIPTION = """Runs of the weekly pipeline: passages and pictures to a registered multimodal embedder.

A **pipeline run** holds the whole configuration, the scores, the gate's verdict and the report; unfold it to see its
**steps**, each with its own configuration, curves and plots. `Datasets used` names the bytes by their DVC digests.
Compare runs by `score`, the mean over all tasks; the model that a run ended with is under `Models`.
"""


def database(workspace: Path) -> Path:
    """The sqlite file of a workspace whose tracker is not elsewhere."""
    return local_database(workspace)


def open_client(workspace: Path) -> MlflowClient:
    """A client of the tracker that the environment names, else of the workspace's own database.

    An empty or missing database gets its tables. Sets MLflow's tracking URI for this process.

    Raises:
        FoundryError: The database is of another version or program; nothing was changed.
        SQLAlchemyError: It can't be reached; see `explained`.
    """
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
def explained(workspace: Path) -> Iterator[None]:
    """Turn what MLflow or its database cannot do (a full disk, a damaged file, no answer) into a `TrackerError`."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, RequestException) as error:
        settings = RecordSettings.from_environment()
        where = local_database(workspace) if settings.mlflow_uri is None else settings.tracking_uri(workspace)
        raise TrackerError(
            f"The records in {where} could not be read or written: {told(error)}",
            hint="Mend the cause (is it running? disk space, permissions) and run the same command again.",
            exit_code=1,
        ) from error


def experiment_of(client: MlflowClient, workspace: Path, name: str) -> str:
    """Id of the experiment `name`, made if needed, with its artifacts where the settings say."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = RecordSettings.from_environment().artifact_location(workspace, name)
    tags = {"mlflow.note.content": DESCRIPTION, "mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=location, tags=tags))


def _create_database(path: Path) -> None:
    """Make the tables in a file aside and rename it: a kill in the middle of the migrations leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    MlflowClient(sqlite_url(part)).search_experiments()
    part.rename(path)
