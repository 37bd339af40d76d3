"""What would fail at the end of a run is told before its begin: which field, what was expected, what to do."""

from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from gme_data.errors import FoundryError
from gme_release import preflight
from gme_release.config import ReleaseConfig
from gme_release.dvc.config import ensure_dvc_config
from gme_release.preflight import check_release

CONFIG = ReleaseConfig()


def errors(workspace: Path, config: ReleaseConfig = CONFIG) -> dict[str, FoundryError]:
    return {found.what: found.error for found in check_release(workspace, config) if found.error}


def test_a_new_workspace_is_ready_and_nothing_is_written(tmp_path: Path) -> None:
    assert errors(tmp_path) == {}
    assert [found.what for found in check_release(tmp_path, CONFIG)] == ["tracker", "artifacts", "remote", "policy"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "value", "what", "told", "code"),
    [
        ("GME_MLFLOW_URI", "sqlite:////nowhere/at/all/x.db", "tracker", "there is no folder /nowhere/at/all", 2),
        ("GME_MLFLOW_URI", "sqlite://", "tracker", "expected a host, or for sqlite:/// a file", 2),
        ("GME_MLFLOW_URI", "sqlite:///:memory:", "tracker", "expected a host", 2),
        ("GME_MLFLOW_URI", "http://:5000", "tracker", "expected a host", 2),
        ("GME_MLFLOW_URI", "postgresql://host:port/db", "tracker", "expected a host", 2),
        ("GME_TRACKER_WAIT", "nan", "tracker", "finite number", 2),
        ("GME_ARTIFACT_ROOT", "azure://x", "artifacts", "expected a folder or one of s3://", 2),
        ("GME_ARTIFACT_ROOT", "/proc/nowhere", "artifacts", "can't be", 1),
        ("GME_DVC_REMOTE", "ssh://host/x", "remote", "expected a folder or one of s3://", 2),
        ("GME_DVC_REMOTE", "file:///proc/nowhere", "remote", "/proc/nowhere can't be", 1),
    ],
)
def test_addresses(
    variable: str, value: str, what: str, told: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    found = errors(tmp_path)[what]
    assert told in str(found)
    assert found.hint
    assert found.exit_code == code


def test_what_talks_to_a_store_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GME_MLFLOW_URI", "postgresql://host/db")
    monkeypatch.setenv("GME_ARTIFACT_ROOT", "s3://bucket/mlflow")
    monkeypatch.setenv("GME_DVC_REMOTE", "s3://bucket/dvc")
    gone = {"psycopg", "psycopg2", "boto3", "dvc_s3"}
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find(name))
    found = errors(tmp_path)
    assert "psycopg" in str(found["tracker"])
    assert "boto3" in str(found["artifacts"])
    assert "dvc-s3" in str(found["remote"])


def test_a_remote_that_dvc_does_not_know(tmp_path: Path) -> None:
    ensure_dvc_config(tmp_path, CONFIG)
    found = errors(tmp_path, ReleaseConfig(remote="stor"))["remote"]
    assert "release.remote: DVC has no remote 'stor'" in str(found)
    assert "Did you mean 'store'?" in str(found)
    (tmp_path / ".dvc/config").write_text("[core\n")
    assert "is no configuration of DVC" in str(errors(tmp_path)["remote"])
    (tmp_path / ".dvc/config").write_text("['remote \"store\"']\n    url = file:///x\n")
    assert "write the folder's own path" in str(errors(tmp_path)["remote"])


def test_a_remote_inside_of_what_is_pushed(tmp_path: Path) -> None:
    assert "lies in data" in str(errors(tmp_path, ReleaseConfig(remote_url="data/store"))["remote"])


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "dvc-store").touch()
    assert "is a file" in str(errors(tmp_path)["remote"])


def test_a_full_disk_is_told_with_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=preflight.MIN_FREE_BYTES // 2))
    found = errors(tmp_path)
    assert set(found) == {"tracker", "artifacts", "remote"}
    assert "0.50 GiB are free, 1 GiB is expected" in str(found["remote"])
    assert {error.exit_code for error in found.values()} == {1}


def test_a_missing_policy(tmp_path: Path) -> None:
    assert "none.yaml" in str(errors(tmp_path, ReleaseConfig(promotion=Path("none.yaml")))["policy"])


def test_a_database_that_is_none_or_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "runs/mlflow/mlflow.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 100)
    assert "can't be read" in str(errors(tmp_path)["tracker"])
    path.unlink()
    sqlite3.connect(path).execute("create table theirs (x)")
    # What was looked up is kept for a process, so another workspace is asked.
    other = tmp_path / "other"
    (other / "runs/mlflow").mkdir(parents=True)
    path.rename(other / "runs/mlflow/mlflow.db")
    assert "belongs to another program" in str(errors(other)["tracker"])


def test_a_tracker_that_is_down_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GME_MLFLOW_URI", "http://127.0.0.1:9")
    assert errors(tmp_path) == {}
