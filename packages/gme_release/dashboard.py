"""Both user interfaces on what the runs wrote: the servers of MLflow and Prefect, started and stopped together.

Prefect is started as a program with the environment it is given; this module does not import it and does not know
where its database lies.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_release.settings import RecordSettings

_HOST = "127.0.0.1"
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Dashboards:
    """Addresses of the running servers."""

    mlflow: str
    prefect: str


def serve_dashboards(
    workspace: Path,
    prefect_environment: Mapping[str, str],
    *,
    mlflow_port: int | None = None,
    prefect_port: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve both until Ctrl-C.

    Args:
        workspace: Where the runs are.
        prefect_environment: What ties Prefect to the workspace.
        mlflow_port: A free port if None.
        prefect_port: A free port if None.
        announce: Takes the lines for people; standard error if None.

    Raises:
        FoundryError: Nothing was recorded yet, a port is taken, or a server does not come up.
    """
    say = announce or _to_stderr
    say("Starting the MLflow and Prefect servers ...")
    with running_dashboards(workspace, prefect_environment, mlflow_port=mlflow_port, prefect_port=prefect_port) as urls:
        say(f"MLflow   {urls.mlflow}   runs, metrics, models\nPrefect  {urls.prefect}   flow runs, artifacts")
        say("Ctrl-C stops both.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            say("Stopping ...")


@contextmanager
def running_dashboards(
    workspace: Path,
    prefect_environment: Mapping[str, str],
    *,
    mlflow_port: int | None = None,
    prefect_port: int | None = None,
) -> Iterator[Dashboards]:
    """Both servers, healthy inside the block and gone after it. See `serve_dashboards`."""
    RecordSettings.from_environment().require_records(workspace)
    mlflow_at, prefect_at = _address(mlflow_port), _address(prefect_port)
    logs = workspace / "runs" / "dashboard"
    logs.mkdir(parents=True, exist_ok=True)
    # Prefect makes no folder for a database whose address it is told.
    Path(prefect_environment["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # Both start at once: each needs several seconds.
        mlflow = stack.enter_context(
            _server(_mlflow_command(mlflow_at), _mlflow_environment(workspace), workspace, logs / "mlflow.log")
        )
        # The page asks the API where this says; by default it would look at another port than ours.
        prefect_settings = {**prefect_environment, "PREFECT_SERVER_UI_API_URL": f"{_url(prefect_at)}/api"}
        prefect = stack.enter_context(
            _server(_prefect_command(prefect_at), prefect_settings, workspace, logs / "prefect.log")
        )
        _wait_healthy("MLflow", mlflow, f"{_url(mlflow_at)}/health", logs / "mlflow.log")
        _wait_healthy("Prefect", prefect, f"{_url(prefect_at)}/api/health", logs / "prefect.log")
        yield Dashboards(_url(mlflow_at), _url(prefect_at))


def _mlflow_command(port: int) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]


def _mlflow_environment(workspace: Path) -> dict[str, str]:
    """What the server is to serve; in its environment, because everybody can read the arguments of a process."""
    settings = RecordSettings.from_environment()
    root = settings.artifact_root or "runs/mlflow/artifacts"  # relative: the server runs in the workspace
    return {
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri(workspace),
        "MLFLOW_ARTIFACTS_DESTINATION": root,
    }


def _prefect_command(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(port)]


@contextmanager
def _server(
    command: list[str], environment: Mapping[str, str], workspace: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    # A process group of its own: Ctrl-C reaches us alone, and the workers a server starts end with it.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=workspace,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(_STOP_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def _wait_healthy(name: str, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise FoundryError(f"The {name} server ended at once.", hint=f"See {log}.", exit_code=1)
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise FoundryError(f"The {name} server did not answer in {_START_SECONDS:.0f} s.", hint=f"See {log}.", exit_code=1)


def _address(port: int | None) -> int:
    """`port` if it is free, or any free one."""
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, port or 0))
        except OSError as error:
            raise FoundryError(f"Port {port} is taken.", hint="Give another, or none to get a free one.") from error
        return int(probe.getsockname()[1])


def _url(port: int) -> str:
    return f"http://{_HOST}:{port}"


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
