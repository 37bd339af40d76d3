"""A real PostgreSQL server in a folder of its own, as a user that it agrees to run as."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def running_postgres() -> Iterator[str]:
    """``postgresql://postgres@127.0.0.1:<port>``; skips where there is none to run."""
    if not all(map(shutil.which, ("initdb", "pg_ctl", "postgres"))):
        pytest.skip("no PostgreSQL server programs on this machine (initdb, pg_ctl, postgres)")
    user = _user()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Path(tempfile.mkdtemp(prefix="gme-postgres-"))
    home.chmod(0o777)
    cluster = home / "cluster"
    try:
        _run([*user, "initdb", "-D", cluster, "-U", "postgres", "--auth=trust", "--no-sync"], home)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {home}"
        log = home / "log"
        _run([*user, "pg_ctl", "-D", cluster, "-w", "-t", "300", "-l", log, "-o", options, "start"], home)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            _run([*user, "pg_ctl", "-D", cluster, "-m", "immediate", "stop"], home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def create_database(server: str, name: str) -> str:
    """A new database; its address."""
    import psycopg

    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    return f"{server}/{name}"


def _user() -> list[str]:
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None or "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres' to run it as")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _run(command: list[object], folder: Path) -> None:
    with (folder / "commands.log").open("ab") as log:
        done = subprocess.run([str(part) for part in command], stdout=log, stderr=log, cwd=folder, check=False)
    assert done.returncode == 0, (folder / "commands.log").read_text()
