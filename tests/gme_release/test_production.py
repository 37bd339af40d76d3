"""Records elsewhere, by settings alone: what they may be, databases of other versions, PostgreSQL and S3 for real."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from release_miniature import build_workspace
from support.postgres import create_database, running_postgres
from support.small import HERE, Small

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.preflight import check_release
from gme_release.registry.champion import resolve_model
from gme_release.registry.registration import register
from gme_release.settings import RecordSettings, local_database
from gme_release.tracking.client import open_client


def test_a_workspace_of_its_own_is_the_default(tmp_path: Path) -> None:
    settings = RecordSettings.from_environment()
    assert settings.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/runs/mlflow/mlflow.db"
    assert settings.artifact_location(tmp_path, "x") == f"file://{tmp_path}/runs/mlflow/artifacts/x"
    assert not settings.has_records(tmp_path)


def test_a_workspace_of_any_name(tmp_path: Path, empty_database: Path) -> None:
    """A model is logged, registered, found by its alias and fetched; all of it inside the workspace."""
    workspace = tmp_path / "we ird?#%41+ü:x'--;"
    local_database(workspace).parent.mkdir(parents=True)
    shutil.copy(empty_database, local_database(workspace))
    facts = build_workspace(workspace)
    config = ReleaseConfig(experiment="../a b/ü?#%41")
    registered = register(workspace, config, facts)
    assert registered.version == "1"
    assert resolve_model(workspace, config.model_name).folder.is_relative_to(workspace)
    assert register(workspace, config, facts).run_id == registered.run_id
    [artifacts] = (workspace / "runs/mlflow/artifacts").iterdir()
    assert artifacts.name == "../a b/ü?#%41".replace("/", "%2F").replace(" ", "%20").replace("ü", "%C3%BC").replace(
        "?", "%3F"
    ).replace("#", "%23").replace("%41", "%2541")
    assert [found.name for found in tmp_path.iterdir()] == [workspace.name]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GME_MLFLOW_URI", "mysql://me:hidden@host/db", "expected http"),
        ("GME_MLFLOW_URI", "https://me:hidden@host", "MLFLOW_TRACKING_PASSWORD"),
        ("GME_MLFLOW_URI", "http://hidden@host", "MLFLOW_TRACKING_TOKEN"),
        ("GME_MLFLOW_URI", "https://host/x?api_key=hidden", "netrc"),
        ("GME_MLFLOW_URI", "postgresql://me:hidden@host/db", "PGPASSWORD"),
        ("GME_MLFLOW_URI", "postgresql+psycopg://me@host/db?password=hidden", "pgpass"),
        ("GME_DVC_REMOTE", "s3://key:hidden@bucket", "AWS_SECRET_ACCESS_KEY"),
        ("GME_DVC_REMOTE", "gs://bucket/x?X-Goog-Signature=hidden", "keep credentials out"),
        ("GME_ARTIFACT_ROOT", "s3://hidden@bucket", "AWS_SECRET_ACCESS_KEY"),
        ("GME_ARTIFACT_ROOT", "wasbs://box@account.blob.core.windows.net/x?sig=hidden", "keep credentials out"),
        ("GME_ARTIFACT_ROOT", "ftp://host/x", "expected a folder"),
        ("GME_TRACKER_WAIT", "long", "valid number"),
    ],
)
def test_wrong_settings_are_named_without_their_passwords(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(FoundryError, match=said) as refused:
        RecordSettings.from_environment()
    assert name in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("revision", "said", "hint"),
    [
        ("451aebb31d03", "older version", "mlflow db upgrade"),
        ("f00000000000", "newer version", "Install the MLflow"),
    ],
)
@pytest.mark.hardening("faults", "F26", "tracker's database damaged, of another version")
def test_a_database_of_another_version_is_left_alone(
    tmp_path: Path, empty_database: Path, revision: str, said: str, hint: str
) -> None:
    path = local_database(tmp_path)
    path.parent.mkdir(parents=True)
    shutil.copy(empty_database, path)
    with sqlite3.connect(path) as connection:
        connection.execute("update alembic_version set version_num = ?", (revision,))
        connection.execute("drop table logged_models")  # MLflow alone would take it for unfinished, and migrate
    connection.close()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(FoundryError, match=said) as refused:
        open_client(tmp_path)
    assert hint in str(refused.value.hint)
    tracker = next(check_release(tmp_path, ReleaseConfig()))
    assert said in str(tracker.error)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = local_database(tmp_path)
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as connection:
        connection.execute("create table flow_run (id text)")
    connection.close()
    with pytest.raises(FoundryError, match="another program"):
        open_client(tmp_path)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with running_postgres() as address:
        yield address


@pytest.mark.slow
def test_the_small_pipeline_keeps_its_records_elsewhere(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    prefect = create_database(postgres, "prefect").replace("postgresql://", "postgresql+asyncpg://")
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "never-written-anywhere",
        "AWS_DEFAULT_REGION": "us-east-1",
        "GME_MLFLOW_URI": create_database(postgres, "mlflow"),
        "GME_ARTIFACT_ROOT": "s3://records/mlflow",
        "GME_DVC_REMOTE": "s3://records/dvc",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": prefect,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    store = boto3.client("s3")
    store.create_bucket(Bucket="records")
    shutil.copy(HERE / "promotion.yaml", tmp_path)
    small = Small(tmp_path)
    made = small.json("pipeline")
    assert made["version"] == made["champion"] == "1"
    keys = {entry["Key"] for page in _pages(store) for entry in page["Contents"]}
    assert any(key.startswith("dvc/files/md5/") for key in keys)
    assert any(key.endswith(".safetensors") and key.startswith("mlflow/") for key in keys)
    assert any(key.endswith("plots/loss.svg") for key in keys)
    for local in ("runs/mlflow/mlflow.db", "runs/mlflow/artifacts", "runs/prefect/prefect.db", "dvc-store"):
        assert not (tmp_path / local).exists(), local
    run = open_client(tmp_path).get_run(made["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["gme.prefect.flow_run_id"]
    again = small.json("pipeline")
    assert all(step["reused"] for step in again["steps"].values())
    assert (again["version"], again["run_id"]) == ("1", made["run_id"])
    for path in (path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 10**6):
        assert b"never-written-anywhere" not in path.read_bytes(), path
    server.stop()


def _pages(store) -> Iterator[dict]:
    yield from store.get_paginator("list_objects_v2").paginate(Bucket="records")
