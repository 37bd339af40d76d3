"""Prefect's database is looked at first: what can't be used is told within seconds, what is damaged is put aside."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.small import CONFIG, HERE

import flows.database
from flows.database import ADDRESSES, require_database
from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.urls import sqlite_url


def of(path: Path) -> dict[str, str]:
    return {ADDRESSES[0]: sqlite_url(path, "sqlite+aiosqlite")}


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE flow_run (id TEXT, name TEXT)")
        connection.executemany("INSERT INTO flow_run VALUES (?, ?)", [(str(n), "x" * 500) for n in range(200)])
    return path


def test_a_whole_one_is_left_as_it_is(tmp_path: Path) -> None:
    path = make(tmp_path / "we ird?#%41" / "prefect.db")
    before = path.read_bytes()
    require_database(of(path))
    require_database(of(tmp_path / "none yet.db"))
    require_database({})
    assert path.read_bytes() == before
    assert not (tmp_path / "none yet.db").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"garbage " * 1000,
        lambda data: b"\0" * len(data),
        lambda data: data[: len(data) // 2],
        lambda data: data[:4096] + b"\xff" * 4096 + data[8192:],
    ],
    ids=["garbage", "zeros", "half", "page"],
)
@pytest.mark.hardening("faults", "F27", "Prefect's database damaged or locked")
def test_a_damaged_one_is_put_aside(tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    path = make(tmp_path / "prefect.db")
    data = damage(path.read_bytes())  # type: ignore[operator]
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        require_database(of(path))
    assert not path.exists()
    [aside] = tmp_path.glob("prefect.db.damaged-*")
    assert aside.read_bytes() == data
    assert "was damaged and is put aside" in caplog.text


@pytest.mark.hardening("faults", "F27", "Prefect's database damaged or locked")
def test_a_locked_one_is_told_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flows.database.WAIT_SECONDS <= 10
    monkeypatch.setattr(flows.database, "WAIT_SECONDS", 0.5)
    path = make(tmp_path / "prefect.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(FoundryError, match="is locked by another program") as refused:
            require_database(of(path))
    assert time.monotonic() - began < 5
    assert (refused.value.exit_code, str(path) in str(refused.value)) == (1, True)


def test_the_pipeline_says_so_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flows.database, "WAIT_SECONDS", 0.2)
    shutil.copy(HERE / "promotion.yaml", tmp_path)
    path = make(tmp_path / "runs" / "prefect" / "prefect.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert run(["pipeline", "--config", str(CONFIG), "--workspace", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"Prefect's database {path} is locked by another program." in said
    assert "gme schedules" in said
    assert not (tmp_path / "data").exists()


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").mkdir()
    with pytest.raises(FoundryError, match="can't be used"):
        require_database(of(tmp_path / "prefect.db"))


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql+asyncpg://user:CANARY@host/prefect", "keep the password out"),
        ("postgresql+asyncpg://host/prefect?password=CANARY", "keep the password out"),
        ("mysql://user:CANARY@host/prefect", "expected postgresql"),
        ("CANARY", "expected postgresql"),
        ("postgresql+asyncpg://CANARY@host:port/prefect", "a port that is a number"),
    ],
)
def test_a_bad_address_is_refused_and_not_shown(name: str, address: str, said: str) -> None:
    with pytest.raises(FoundryError, match=said) as refused:
        require_database({name: address})
    assert "CANARY" not in f"{refused.value} {refused.value.hint} {refused.value.__cause__}"
    assert name in str(refused.value)


def test_an_address_without_a_password_is_taken() -> None:
    require_database({ADDRESSES[1]: "postgresql+asyncpg://prefect@records.example:5432/prefect?ssl=verify-full"})
    require_database({ADDRESSES[0]: "postgresql+asyncpg:///prefect"})  # PGHOST says where
