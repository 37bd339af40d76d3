from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from gme_data.urls import file_url_path, sqlite_path, sqlite_url

STRANGE = ["plain", "we ird?#%41+ü:x", "what?mode=memory", ":memory:", "%(x)s", "a&b=c;d@e'f\"g$h", "file:x"]


@pytest.mark.parametrize("name", STRANGE)
def test_the_address_names_exactly_that_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "runs.db"
    path.parent.mkdir()
    engine = create_engine(sqlite_url(path))
    with engine.begin() as connection:
        connection.execute(text("create table here (x)"))
    engine.dispose()
    assert sqlite3.connect(path).execute("select name from sqlite_master").fetchall() == [("here",)]
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert sqlite_path(sqlite_url(path)) == path
    assert file_url_path(path.as_uri()) == path


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_what_lives_in_memory_has_no_file(url: str) -> None:
    assert sqlite_path(url) is None
