"""`make serve-prefect`: a server on the workspace's database, the pools, the deployments and a worker for each pool.

Programs of Prefect, started and ended together. Knows no flow.
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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.server import prefect_environment
from gme_data.errors import FoundryError

POOLS = ("cpu", "gpu")
_CHECKOUT = Path(__file__).resolve().parents[1]
_HOST = "127.0.0.1"
_START_SECONDS = 300.0
_STOP_SECONDS = 20.0


@contextmanager
def running_schedules(workspace: Path, port: int | None = None, file: Path | None = None) -> Iterator[str]:
    """The server's address; inside the block schedules fire and workers take what is due.

    Args:
        workspace: Holds the database, the logs (``runs/prefect/*.log``) and what the flows make.
        port: Of the server; a free one if None.
        file: Deployments; ``flows/prefect.yaml`` if None.

    Raises:
        FoundryError: The server does not come up, or Prefect refuses a deployment.
    """
    url = f"http://{_HOST}:{port or _free_port()}"
    environment = {
        **os.environ,
        **prefect_environment(workspace),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "GME_CHECKOUT": str(_CHECKOUT),
        "GME_WORKSPACE": str(workspace.resolve()),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    logs = workspace / "runs" / "prefect"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        host, _, number = url.removeprefix("http://").partition(":")
        command = ("server", "start", "--host", host, "--port", number)
        server = stack.enter_context(_running(command, environment, logs / "server.log"))
        _await_health(server, url, logs / "server.log")
        for pool in POOLS:
            _prefect(environment, "work-pool", "create", pool, "--type", "process", "--overwrite")
        deployments = str((file or _CHECKOUT / "flows" / "prefect.yaml").resolve())
        _prefect(environment, "--no-prompt", "deploy", "--all", "--prefect-file", deployments)
        for pool in POOLS:
            worker = ("worker", "start", "--pool", pool, "--limit", "1")
            stack.enter_context(_running(worker, environment, logs / f"worker-{pool}.log"))
        yield url


def _prefect(environment: Mapping[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=_CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise FoundryError(f"`prefect {' '.join(arguments)}` failed:\n{said}", exit_code=1)


@contextmanager
def _running(
    arguments: tuple[str, ...], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=_CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone, and what it starts ends with it
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


def _await_health(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api/health", timeout=5):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise FoundryError(f"Prefect's server did not come up at {url}.", hint=f"See {log}.", exit_code=1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
