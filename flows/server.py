"""Prefect's server of a workspace: on loopback, behind the workspace's secret, restarted if it is killed.

Also where Prefect keeps its database, and the lock that allows one pipeline at a time in a workspace.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from flows.database import ADDRESSES, require_database
from flows.secret import workspace_secret
from gme_data.errors import FoundryError
from gme_data.programs import LOOPBACK, Program, await_answer, free_port, start_program, stop_program
from gme_data.urls import sqlite_url

_LAUNCHER = "gme_data.programs"
"""Module that starts our servers, by which their processes are recognised."""
_START_SECONDS = 300.0
_MAX_RESTARTS = 3
_LOGGER = logging.getLogger(__name__)
_temporary: list[PrefectServer] = []
"""Servers of `prefect_workspace` in this process."""


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A running server.

    Attributes:
        url: Address of its page.
        secret: What the login form and every client must send.
        environment: The settings of a client or worker of the server, and nothing else.
    """

    url: str
    secret: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)


def prefect_environment(workspace: Path) -> dict[str, str]:
    """Returns the settings that tie Prefect to a workspace: by default its database is in ``runs/prefect``.

    The database's address is set, because Prefect would make it from the folder's name without quoting it. If the user
    has set ``PREFECT_HOME``, all is in that folder.
    """
    home = workspace.resolve() / "runs" / "prefect"
    database = {} if _database_is_set() else {ADDRESSES[0]: sqlite_url(home / "prefect.db", "sqlite+aiosqlite")}
    locations = {"PREFECT_HOME": str(home), **database}
    if "PREFECT_HOME" in os.environ:
        locations = {"PREFECT_HOME": os.environ["PREFECT_HOME"]}
    return {
        **locations,
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Or a client that reaches no server would start one in its own process.
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"),
    }


def _database_is_set() -> bool:
    """Returns whether the user has set the database's address, or a part of it."""
    return any(name.startswith(("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_")) for name in os.environ)


@contextmanager
def running_server(
    workspace: Path, log: Path, port: int | None = None, *, page: bool = True
) -> Iterator[PrefectServer]:
    """Runs a healthy server in the block. If it is killed meanwhile, it is started again at its port.

    Args:
        workspace: Folder of its database and its secret.
        log: File of its output.
        port: The port; a free one if None.
        page: Whether it serves pages and schedules runs; the run of a single pipeline needs neither.

    Raises:
        FoundryError: Database or secret can't be used, the port is taken, or the server does not come up.
    """
    with launched_server(workspace, log, port, page=page) as (server, process):
        await_server(server, process, log)
        yield server


@contextmanager
def launched_server(
    workspace: Path, log: Path, port: int | None = None, *, page: bool = True
) -> Iterator[tuple[PrefectServer, Program]]:
    """Runs a server as `running_server` does, without waiting until it answers; see `await_server`."""
    settings = prefect_environment(workspace)
    Path(settings["PREFECT_HOME"]).mkdir(
        parents=True, exist_ok=True
    )  # Prefect makes it only where it chooses the database's address itself
    require_database({**os.environ, **settings})
    # They would hold the database and, on a fixed port, the port.
    end_orphaned_servers(Path(settings["PREFECT_HOME"]))
    number = free_port(port)
    url, secret = f"http://{LOOPBACK}:{number}", workspace_secret(workspace)
    client = {**settings, "PREFECT_API_URL": f"{url}/api", "PREFECT_API_AUTH_STRING": secret}
    server = PrefectServer(url, secret, client)
    without_page = () if page else ("--no-ui", "--no-scheduler", "--no-late-runs")
    command = ("server", "start", "--host", LOOPBACK, "--port", str(number), "--analytics-off", *without_page)
    environment = {**os.environ, **server.environment, **_server_settings(server, page=page)}
    keeper = _ServerKeeper(command, environment, workspace, log)
    try:
        yield server, keeper.process
    finally:
        keeper.stop()


def await_server(server: PrefectServer, process: Program, log: Path) -> None:
    """Waits until the server answers.

    Raises:
        FoundryError: The server ended, or does not answer.
    """
    await_answer("Prefect's server", process, f"{server.url}/api/health", log, _START_SECONDS)


def _server_settings(server: PrefectServer, *, page: bool) -> dict[str, str]:
    """Returns the settings of the server alone: whom it obeys, and where its own page finds it."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": server.secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": server.url,
        "PREFECT_SERVER_UI_API_URL": f"{server.url}/api",
        # The second version of Prefect's UI asks Amplitude for its settings, even with analytics off.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Block types are of use on a page alone.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": str(page).lower(),
    }


class _ServerKeeper:
    """Starts the server, and again if it is killed: its database is on disk, and clients retry for seconds."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], workspace: Path, log: Path) -> None:
        self._command, self._environment, self._workspace, self._log = command, environment, workspace, log
        self._stopped = threading.Event()
        self.process: Program = self._start("wb")
        self._thread = threading.Thread(target=self._keep, name="prefect-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        stop_program(self.process)

    def _start(self, mode: str) -> Program:
        return start_program("prefect", self._command, self._environment, self._workspace, self._log, mode)

    def _keep(self) -> None:
        for _ in range(_MAX_RESTARTS):
            while self.process.poll() is None:
                if self._stopped.wait(0.2):
                    return
            if self._stopped.is_set() or self.process.returncode >= 0:  # it exited by itself, and would do so again
                return
            _LOGGER.warning("Prefect's server was killed (signal %d) and is started again.", -self.process.returncode)
            self.process = self._start("ab")
        self._stopped.wait()  # a server dies with the thread that started it, so this thread must not end


@contextmanager
def prefect_workspace(workspace: Path, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the workspace for one pipeline run, with a server for it unless ``PREFECT_API_URL`` names one.

    Runs that earlier pipelines left open in Prefect are marked as crashed.

    Args:
        workspace: The workspace.
        meanwhile: Is called while the server starts, which takes seconds.

    Raises:
        FoundryError: Another pipeline is running in this workspace, or the server does not come up.
    """
    with hold_workspace(workspace):
        if os.environ.get("PREFECT_API_URL"):
            yield
            return
        # A database of the user's may be shared with other machines.
        alone = not _database_is_set() and "PREFECT_HOME" not in os.environ
        log = workspace / "runs" / "prefect" / "pipeline-server.log"
        with launched_server(workspace, log, page=False) as (server, process), _settings(server.environment):
            from flows.crashed_runs import flush_prefect, mark_left_open

            meanwhile()
            await_server(server, process, log)
            mark_left_open(alone=alone)
            _temporary.append(server)
            try:
                yield
            finally:
                flush_prefect()
                _temporary.remove(server)


@contextmanager
def _settings(environment: Mapping[str, str]) -> Iterator[None]:
    """Applies Prefect's settings in this process and those that it starts, whether prefect was imported or not."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    refresh_global_settings_context()
    try:
        # A server finds crashed runs by heartbeats. This one ends with its run, which would wait a second for the last
        # heartbeat.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield
    finally:
        # Only the environment is restored: without Prefect's own settings its last events would start another server.
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def is_temporary_server() -> bool:
    """Returns whether the server is one of `prefect_workspace`, which has no page and ends with the run."""
    return bool(_temporary)


@contextmanager
def hold_workspace(workspace: Path) -> Iterator[None]:
    """Holds the lock of a workspace, in which one pipeline at a time may run.

    Raises:
        FoundryError: Another pipeline is running in the workspace.
    """
    runs = workspace / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    lock = FileLock(runs / "pipeline.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FoundryError(
            "Another pipeline is running in this workspace.", hint="Wait for it, or use another --workspace."
        ) from error
    try:
        yield
    finally:
        lock.release()


def end_orphaned_servers(home: Path) -> int:
    """Ends the servers that killed runs of this workspace left behind, and returns their number.

    On Linux the kernel ends them already, since a server dies with its parent.
    """
    orphans = [process for process in psutil.process_iter(["cmdline"]) if _is_orphan(process, home)]
    for process in orphans:
        process.terminate()
    psutil.wait_procs(orphans, timeout=10)
    return len(orphans)


def _is_orphan(process: psutil.Process, home: Path) -> bool:
    try:
        command = process.info["cmdline"] or []
        if _LAUNCHER not in command or "prefect" not in command:
            return False
        parent = command[command.index(_LAUNCHER) + 1]
        return process.environ().get("PREFECT_HOME") == str(home) and not psutil.pid_exists(int(parent))
    except (psutil.Error, ValueError, IndexError):
        return False
