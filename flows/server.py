"""Prefect's server of a workspace: on loopback, obeying who knows the workspace's secret; started again if it dies.

Where Prefect keeps its records, and one pipeline at a time in a workspace.
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
_START_SECONDS = 300.0
_MOST_RESTARTS = 3
_LOGGER = logging.getLogger(__name__)
_passing: list[PrefectServer] = []


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A running server.

    Attributes:
        url: Of its page.
        secret: What the page's login form and every client is asked for.
        environment: The settings of a client or worker of it, and nothing else.
    """

    url: str
    secret: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)


def prefect_environment(workspace: Path) -> dict[str, str]:
    """The settings that tie Prefect to a workspace: its database lies in ``runs/prefect``, or where the user says.

    Prefect makes the address of its database from the folder's name without quoting it, so it is told the address. With
    a ``PREFECT_HOME`` of the user's, that folder decides.
    """
    home = workspace.resolve() / "runs" / "prefect"
    database = {} if _database_is_set() else {ADDRESSES[0]: sqlite_url(home / "prefect.db", "sqlite+aiosqlite")}
    place = {"PREFECT_HOME": str(home), **database}
    if "PREFECT_HOME" in os.environ:
        place = {"PREFECT_HOME": os.environ["PREFECT_HOME"]}
    return {
        **place,
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"),
    }


def _database_is_set() -> bool:
    """Whether the user told Prefect where its database is: its address, or the parts of one."""
    return any(name.startswith(("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_")) for name in os.environ)


@contextmanager
def running_server(
    workspace: Path, log: Path, port: int | None = None, *, page: bool = True
) -> Iterator[PrefectServer]:
    """A healthy server inside the block, gone after it. If it dies in between it is started again at its port.

    Args:
        workspace: Holds its database and its secret.
        log: Gets what it says.
        port: A free one if None.
        page: Whether it shows pages and plans the runs of schedules; a run of one pipeline needs neither.

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
    """As `running_server`, not awaited: others may start meanwhile. See `await_server`."""
    settings = prefect_environment(workspace)
    Path(settings["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes it only for an address of its own
    require_database({**os.environ, **settings})
    end_orphaned_servers(Path(settings["PREFECT_HOME"]))
    number = free_port(port)
    server = _describe(f"http://{LOOPBACK}:{number}", workspace_secret(workspace), settings)
    quiet = () if page else ("--no-ui", "--no-scheduler", "--no-late-runs")
    command = ("server", "start", "--host", LOOPBACK, "--port", str(number), "--analytics-off", *quiet)
    environment = {**os.environ, **server.environment, **_server_settings(server, page=page)}
    keeper = _Keeper(command, environment, workspace, log)
    try:
        yield server, keeper.process
    finally:
        keeper.stop()


def await_server(server: PrefectServer, process: Program, log: Path) -> None:
    """Return when it answers.

    Raises:
        FoundryError: It ended, or does not answer.
    """
    await_answer("Prefect's server", process, f"{server.url}/api/health", log, _START_SECONDS)


def _describe(url: str, secret: str, settings: Mapping[str, str]) -> PrefectServer:
    client = {**settings, "PREFECT_API_URL": f"{url}/api", "PREFECT_API_AUTH_STRING": secret}
    return PrefectServer(url, secret, client)


def _server_settings(server: PrefectServer, *, page: bool) -> dict[str, str]:
    """What the server alone is told: whom it obeys, and where its own page finds it."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": server.secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": server.url,
        "PREFECT_SERVER_UI_API_URL": f"{server.url}/api",
        # The second page of Prefect's asks Amplitude for its settings, whatever is said about analytics.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # The types of blocks, which are shown on a page.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": str(page).lower(),
    }


class _Keeper:
    """Starts the server, and again if it is killed: its records are on disk, and clients wait for it for seconds."""

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
        for _ in range(_MOST_RESTARTS):
            while self.process.poll() is None:
                if self._stopped.wait(0.2):
                    return
            if self._stopped.is_set() or self.process.returncode >= 0:  # it ended by its own will: it would again
                return
            _LOGGER.warning("Prefect's server was killed (signal %d) and is started again.", -self.process.returncode)
            self.process = self._start("ab")
        self._stopped.wait()  # the kernel ends what this thread started when the thread ends


@contextmanager
def local_records(workspace: Path, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the workspace for one pipeline run, with a server for it unless ``PREFECT_API_URL`` names one.

    What an earlier run left open in Prefect is closed.

    Args:
        workspace: Where the run works.
        meanwhile: Called while the server starts, which takes seconds.

    Raises:
        FoundryError: Another pipeline is running in this workspace, or the server does not come up.
    """
    with hold_workspace(workspace):
        if os.environ.get("PREFECT_API_URL"):
            yield
            return
        alone = not _database_is_set() and "PREFECT_HOME" not in os.environ
        log = workspace / "runs" / "prefect" / "pipeline-server.log"
        with launched_server(workspace, log, page=False) as (server, process), _settings(server.environment):
            from flows.sweep import close_left_open, flush

            meanwhile()
            await_server(server, process, log)
            close_left_open(alone=alone)
            _passing.append(server)
            try:
                yield
            finally:
                flush()
                _passing.remove(server)


@contextmanager
def _settings(environment: Mapping[str, str]) -> Iterator[None]:
    """Settings of Prefect in this process and what it starts, whether prefect has been imported or not."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    refresh_global_settings_context()
    try:
        # By heartbeats a server finds crashed runs: this one ends with its run, which would wait a second for the last.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield
    finally:
        # Prefect itself keeps the settings: without them its last words would start a server of its own.
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def is_passing() -> bool:
    """Whether the server is one of `local_records`, which has no page and ends with the run."""
    return bool(_passing)


@contextmanager
def hold_workspace(workspace: Path) -> Iterator[None]:
    """One pipeline at a time in a workspace.

    Raises:
        FoundryError: Another pipeline is running in it.
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
    """End the servers that killed runs of this workspace left behind where the kernel does not; returns how many."""
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
