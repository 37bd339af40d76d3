"""Checks, before MLflow opens a database, that the installed MLflow can work with it; nothing is changed.

MLflow itself migrates a database that lacks a table, without asking, and calls a newer one out of date. Knows the
revision of a schema, nothing of what is in it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine, inspect, text

from gme_data.errors import FoundryError

_CONNECT_SECONDS = 10
_MLFLOW_TABLES = {"experiments", "runs"}
"""Tables by which a database of MLflow's is recognised."""
_REVISION = re.compile(r"^(down_)?revision(?:: [^=]+)? = [\"'](\w+)[\"']", re.M)


@cache
def require_schema(uri: str) -> None:
    """Checks once a process that the database at `uri` is empty or has the schema of the installed MLflow.

    Raises:
        FoundryError: The database has another schema, or belongs to another program.
        SQLAlchemyError: It can't be reached or read.
    """
    if uri.startswith("http"):
        return  # a server has its own database, and its own MLflow
    revision, tables = _read_revision(uri)
    known_revisions, head = _installed_revisions()
    if revision == head or not tables:
        return
    installed = f"MLflow {importlib.metadata.version('mlflow')} (schema {head})"
    if revision in known_revisions:
        raise FoundryError(
            f"The MLflow database {uri} is of an older version (schema {revision}); installed is {installed}.",
            hint=f"Back it up, then run `mlflow db upgrade '{uri}'`, then the same command again.",
        )
    # A revision that this MLflow does not know, on MLflow's own tables, is of a later version.
    if revision is not None and tables >= _MLFLOW_TABLES:
        raise FoundryError(
            f"The MLflow database {uri} is of a newer version (schema {revision}); installed is {installed}.",
            hint="Install the MLflow that made it (see requirements.txt there). A database can't be taken back.",
        )
    if revision is not None or not tables >= _MLFLOW_TABLES:
        raise FoundryError(
            f"The database {uri} belongs to another program: it has the tables {', '.join(sorted(tables)[:4])}.",
            hint="Give MLflow a database of its own (GME_MLFLOW_URI); Prefect needs another one.",
        )


def _read_revision(uri: str) -> tuple[str | None, set[str]]:
    """Returns revision and tables of a database; the revision is None where no migration ran."""
    arguments = {"connect_timeout": _CONNECT_SECONDS} if uri.startswith("postgresql") else {}
    engine = create_engine(uri, connect_args=arguments)
    try:
        with engine.connect() as connection:
            tables = {name for name in inspect(connection).get_table_names() if not name.startswith("alembic_")}
            if not inspect(connection).has_table("alembic_version"):
                return None, tables
            return connection.execute(text("select version_num from alembic_version")).scalar(), tables
    finally:
        engine.dispose()


def _installed_revisions() -> tuple[set[str], str]:
    """Returns all revisions of the installed MLflow, and the newest.

    The migrations are read as text, because importing their 60 modules takes a second.
    """
    package = importlib.util.find_spec("mlflow")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    scripts = (Path(package.origin).parent / "store" / "db_migrations" / "versions").glob("*.py")
    revisions = [match for path in scripts for match in _REVISION.findall(path.read_text(encoding="utf-8"))]
    known_revisions = {revision for prefix, revision in revisions if not prefix}
    [head] = known_revisions - {revision for prefix, revision in revisions if prefix}
    return known_revisions, head
