"""What an administrator runs once on a new server does what it says: on a real PostgreSQL, as no superuser."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "infra" / "terraform" / "modules" / "database" / "bootstrap.sql"


def unprivileged() -> dict[str, Any]:
    """How to start a server that refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses root, and there is no other user to run it as")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The socket's folder of a new server that looks like RDS: an administrator who is no superuser, and rds_iam."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    who = unprivileged()
    with tempfile.TemporaryDirectory(prefix="pg") as name:  # a socket's path has to be short
        folder = Path(name)
        if who:
            os.chown(folder, who["user"], who["group"])
        options = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "HOME": name}, "cwd": name, **who}
        data = str(folder / "data")
        subprocess.run(["initdb", "-D", data, "-U", "boss", "--auth=trust", "--no-sync"], check=True, **options)
        settings = f"-k {folder} -c listen_addresses='' -c fsync=off"
        start = ["pg_ctl", "-D", data, "-w", "-t", "300", "-l", str(folder / "log"), "-o", settings, "start"]
        subprocess.run(start, check=True, **options)
        try:
            with connect(folder, "boss", "postgres") as boss:
                boss.execute("CREATE ROLE rds_iam")
                boss.execute("CREATE ROLE administrator LOGIN CREATEDB CREATEROLE")
                boss.execute("GRANT rds_iam TO administrator WITH ADMIN OPTION")
                boss.execute("CREATE DATABASE mlflow OWNER administrator")
            yield folder
        finally:
            subprocess.run(["pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **options)


def connect(folder: Path, user: str, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(host=str(folder), user=user, dbname=database, autocommit=True)


def test_each_user_owns_one_database_and_sees_no_other(server: Path) -> None:
    text = "\n".join(line for line in SCRIPT.read_text().splitlines() if not line.startswith("--"))
    with connect(server, "administrator", "mlflow") as administrator:
        for statement in filter(None, map(str.strip, text.split(";"))):
            administrator.execute(statement.encode())
        members = administrator.execute(
            "SELECT rolname FROM pg_roles WHERE pg_has_role(rolname, 'rds_iam', 'MEMBER') AND NOT rolsuper"
        ).fetchall()
    assert {name for (name,) in members} >= {"mlflow", "prefect"}
    for user, other in (("mlflow", "prefect"), ("prefect", "mlflow")):
        with connect(server, user, user) as own:
            own.execute("CREATE TABLE records (id integer)")
            own.execute("CREATE EXTENSION pg_trgm")  # Prefect's migrations do so
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            connect(server, user, other)
