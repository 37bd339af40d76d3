"""MLflow's server on loopback, for its user interface; it answers requests of its own page alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gme_data.programs import LOOPBACK, Program, await_answer, free_port, running_program
from gme_release.settings import RecordSettings

_START_SECONDS = 120.0


@contextmanager
def launched_mlflow(workspace: Path, port: int | None = None) -> Iterator[tuple[str, Program]]:
    """Starts the server for the block and yields its address and process; see `await_mlflow`.

    Args:
        workspace: The workspace of the runs.
        port: The port; a free one if None.

    Raises:
        FoundryError: Nothing was recorded yet, or the port is taken.
    """
    RecordSettings.from_environment().require_records(workspace)
    number = free_port(port)
    command = ("server", "--host", LOOPBACK, "--port", str(number), "--workers", "1")
    environment = {**os.environ, **_environment(workspace, number)}
    with running_program("mlflow", command, environment, workspace, mlflow_log(workspace)) as process:
        yield f"http://{LOOPBACK}:{number}", process


def await_mlflow(url: str, process: Program, workspace: Path) -> None:
    """Waits until the server answers.

    Raises:
        FoundryError: The server ended, or does not answer.
    """
    await_answer("MLflow's server", process, f"{url}/health", mlflow_log(workspace), _START_SECONDS)


def mlflow_log(workspace: Path) -> Path:
    """Returns the file of the server's output."""
    return workspace / "runs" / "dashboard" / "mlflow.log"


def _environment(workspace: Path, port: int) -> dict[str, str]:
    """Returns the settings that say what the server serves, and to whom.

    They are environment variables, because everybody can read the arguments of a process. The hosts are listed, because
    MLflow's default patterns match what begins like a private address, such as ``192.168.1.1.evil.example``.
    """
    settings = RecordSettings.from_environment()
    root = settings.artifact_root or "runs/mlflow/artifacts"  # relative: the server runs in the workspace
    names = [f"{name}:{port}" for name in (LOOPBACK, "localhost")]
    return {
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri(workspace),
        "MLFLOW_ARTIFACTS_DESTINATION": root,
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(names),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}" for name in names),
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
