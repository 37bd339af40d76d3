"""Checks Prefect's database before a server is started on it, which would retry for minutes and print a page.

A damaged file of the workspace is moved aside, since no result depends on it. No message has an address of a database.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from gme_data.errors import FoundryError
from gme_data.urls import sqlite_path

ADDRESSES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
"""Variables that hold the address of the database; the first that is set wins."""
_DRIVERS = ("postgresql+asyncpg", "sqlite+aiosqlite")
WAIT_SECONDS = 5.0
"""The time to wait for the lock of an sqlite file."""
_MAX_CHECKED_BYTES = 256 << 20
"""Larger files are not checked: SQLite reads all pages, about a gigabyte in a second."""
_LOGGER = logging.getLogger(__name__)


def require_database(environment: Mapping[str, str]) -> None:
    """Checks that the database of the settings can be used.

    Raises:
        FoundryError: The address is malformed, has a password, or names a file that is locked or can't be written.
    """
    for name in ADDRESSES:
        address = environment.get(name)
        if address:
            _check_address(name, address)
            path = sqlite_path(address) if address.startswith("sqlite") else None
            if path is not None and path.exists():
                _check_file(path)
            return


def _check_address(name: str, address: str) -> None:
    """Raises for addresses that Prefect would refuse with the address in its message."""
    scheme, _, location = address.partition("://")
    if scheme not in _DRIVERS or not location:
        raise FoundryError(
            f"{name}: expected {' or '.join(f'{driver}://...' for driver in _DRIVERS)}.", hint="See docs/records.md."
        )
    if scheme.startswith("sqlite"):
        return
    try:
        parts = urlsplit(address)
        valid = parts.port != 0
        secret = parts.password is not None or "password=" in parts.query
    except ValueError:  # a port that is no number
        valid = secret = False
    if secret:
        raise FoundryError(
            f"{name}: keep the password out of the address.",
            hint="Give it in PGPASSWORD, or in the file that PGPASSFILE names.",
        )
    if not valid:
        raise FoundryError(f"{name}: expected a port that is a number.", hint="See docs/records.md.")


def _check_file(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
            # Takes the write lock: reading alone would not notice that another program holds it.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            if path.stat().st_size <= _MAX_CHECKED_BYTES:
                [result] = connection.execute("PRAGMA quick_check(1)").fetchone()
                if result != "ok":
                    _move_aside(path)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise FoundryError(
                f"Prefect's database {path} is locked by another program.",
                hint="End what works on it, such as `gme schedules`, `gme dashboard` or sqlite3; then try again.",
                exit_code=1,
            ) from error
        raise FoundryError(
            f"Prefect's database {path} can't be used: {error}.",
            hint="Make file and folder writable for this user, or move the file away: the next run makes another.",
            exit_code=1,
        ) from error
    except sqlite3.DatabaseError:
        _move_aside(path)


def _move_aside(path: Path) -> None:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
    for file in _files(path):
        file.rename(file.with_name(f"{file.name}.damaged-{stamp}"))
    _LOGGER.warning(
        "Prefect's database %s was damaged and is put aside as %s.damaged-%s. Prefect's page begins anew; no result is "
        "lost.",
        path,
        path.name,
        stamp,
    )


def _files(path: Path) -> Iterator[Path]:
    """Yields the files of an sqlite database: itself, and those that SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            yield file
