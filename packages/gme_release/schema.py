"""Whether a database is one that this MLflow can work with; looked up before MLflow opens it, and nothing is changed.

MLflow itself migrates a database that lacks a table, without asking; a newer one it calls out of date. Knows the
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
_OURS = {"experiments", "runs"}
_REVISION = re.compile(r"^(down_)?revision(?:: [^=]+)? = [\"'](\w+)[\"']", re.M)


@cache
def require_schema(uri: str) -> None:
    """See that the database at `uri` is empty or has the schema of the MLflow that is installed. Asked once a process.

    Raises:
        FoundryError: It has another schema, or belongs to another program; says what to do.
        SQLAlchemyError: It can't be reached or read.
    """
    if uri.startswith("http"):
        return  # a server has its own database, and its own MLflow
    found, tables = _revision(uri)
    known, head = _revisions()
    if found == head or not tables:
        return
    installed = f"MLflow {importlib.metadata.version('mlflow')} (schema {head})"
    if found in known:
        raise FoundryError(
            f"The MLflow database {uri} is of an older version (schema {found}); installed is {installed}.",
            hint=f"Back it up, then run `mlflow db upgrade '{uri}'`, then the same command again.",
        )
    if found is not None and tables >= _OURS:
        raise FoundryError(
            f"The MLflow database {uri} is of a newer version (schema {found}); installed is {installed}.",
            hint="Install the MLflow that made it (see requirements.txt there). A database can't be taken back.",
        )
    if found is not None or not tables >= _OURS:
        raise FoundryError(
            f"The database {uri} belongs to another program: it has the tables {', '.join(sorted(tables)[:4])}.",
            hint="Give MLflow a database of its own (GME_MLFLOW_URI); Prefect needs another one.",
        )


def _revision(uri: str) -> tuple[str | None, set[str]]:
    """Revision and tables of a database; no revision where no migration ran."""
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


def _revisions() -> tuple[set[str], str]:
    """The revisions that this MLflow knows, and the newest. Read as text: loading 60 modules takes a second."""
    package = importlib.util.find_spec("mlflow")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    scripts = (Path(package.origin).parent / "store" / "db_migrations" / "versions").glob("*.py")
    found = [match for path in scripts for match in _REVISION.findall(path.read_text(encoding="utf-8"))]
    known = {revision for down, revision in found if not down}
    [head] = known - {revision for down, revision in found if down}
    return known, head
