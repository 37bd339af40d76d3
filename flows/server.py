"""Where Prefect keeps its records for a workspace, and a clean start: no orphaned server, one pipeline at a time.

Must be entered before prefect is imported: it reads its settings from the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from gme_data.errors import FoundryError
from gme_data.urls import sqlite_url

_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_SERVER_MODULE = "prefect.server.api.server:create_app"


def prefect_environment(workspace: Path) -> dict[str, str]:
    """The settings that tie Prefect to a workspace: its database lies in ``runs/prefect``, or where the user says.

    Prefect makes the address of its database from the folder's name without quoting it, so it is told the address.
    """
    home = workspace.resolve() / "runs" / "prefect"
    database = {} if _database_is_set() else {_DATABASE: sqlite_url(home / "prefect.db", "sqlite+aiosqlite")}
    return {
        "PREFECT_HOME": str(home),
        **database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The default of 20 s is not enough on a small machine that is busy.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }


def _database_is_set() -> bool:
    """Whether the user told Prefect where its database is: its address, or the parts of one."""
    return any(name.startswith(("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_")) for name in os.environ)


@contextmanager
def local_records(workspace: Path) -> Iterator[None]:
    """Hold the workspace for one pipeline run, with Prefect's settings in the environment.

    Raises:
        FoundryError: Another pipeline is running in this workspace.
    """
    settings = prefect_environment(workspace)
    if "PREFECT_HOME" in os.environ:  # another home has a database of its own
        settings.pop(_DATABASE, None)
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    with hold_workspace(workspace):
        home = Path(os.environ["PREFECT_HOME"])
        home.mkdir(parents=True, exist_ok=True)  # Prefect makes it only for a database whose address it wrote itself
        end_orphaned_servers(home)
        yield


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
    """End the ephemeral servers that killed runs of this workspace left behind; returns how many."""
    orphans = [process for process in psutil.process_iter(["cmdline"]) if _is_orphan(process, home)]
    for process in orphans:
        process.terminate()
    psutil.wait_procs(orphans, timeout=10)
    return len(orphans)


def _is_orphan(process: psutil.Process, home: Path) -> bool:
    try:
        if _SERVER_MODULE not in (process.info["cmdline"] or []):
            return False
        # A server whose parent died was handed to init, or to a subreaper that is no Python of ours.
        parent = process.parent()
        adopted = parent is None or parent.pid == 1 or "python" not in parent.name()
        return adopted and process.environ().get("PREFECT_HOME") == str(home)
    except psutil.Error:
        return False
