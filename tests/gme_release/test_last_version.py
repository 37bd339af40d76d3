"""A workspace that commit f7cb828 left: its models load, serve and change places, its release verifies.

``f7cb828/workspace.tar.xz`` was made by that commit's code; see ``make.py`` beside it.
"""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from release_miniature import build_workspace
from released_miniature import make_checkout

from gme_cli.main import run
from gme_data.manifest import damage, read_manifest
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.locate import locate
from gme_release.config import ReleaseConfig
from gme_release.registry.champion import resolve_model
from gme_release.registry.registration import register
from gme_release.release.create import create_release
from gme_release.release.signing import make_key
from gme_release.release.verify import verify_release
from gme_release.settings import local_database
from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.service import Service

ARCHIVE = Path(__file__).parent / "f7cb828" / "workspace.tar.xz"
RECORDED = "/srv/gme"
"""Where the workspace lay."""
TEXTS = ["Santiago is the capital of Chile.", "Lima", "A river of 1,204 km"]
MAX_BYTES = 2**24
NAME = ReleaseConfig().model_name


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace as it was left."""
    folder = tmp_path_factory.mktemp("stored") / "workspace"
    with tarfile.open(ARCHIVE) as archive:
        entries = archive.getmembers()
        assert sum(entry.size for entry in entries) < MAX_BYTES
        archive.extractall(folder, entries, filter="data")
    return folder


@pytest.fixture
def workspace(stored: Path, tmp_path: Path) -> Path:
    """A copy that lies where its records say."""
    folder = tmp_path / "workspace"
    shutil.copytree(stored, folder)
    with sqlite3.connect(local_database(folder)) as records:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
            ("tags", "value"),
        ):
            moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"  # noqa: S608 - names from above
            records.execute(moved, (RECORDED, str(folder)))
    return folder


def ok(capture: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command printed."""
    code = run([str(argument) for argument in arguments])
    captured = capture.readouterr()
    assert code == 0, captured.err
    return captured.out


def vectors_of(workspace: Path) -> np.ndarray[Any, Any]:
    """[3, 16] of `TEXTS`, as version 2 made them then."""
    return np.load(workspace / "vectors" / "vectors-00000.npy", allow_pickle=False)


def test_outputs_are_read(stored: Path) -> None:
    """A manifest of then is a manifest; the release, its model and the registered ones embed as they did."""
    for path in ("data/atlas", "data/synthetic", "checkpoints/stage2", "runs/evaluation", "runs/report"):
        manifest = read_manifest(stored / path)
        assert manifest is not None
        assert damage(stored / path, manifest) == []
    (_, logged) = sorted(stored.glob("runs/mlflow/artifacts/gme-tiny/models/*/artifacts"), key=_is_second)
    for folder in (stored / "checkpoints" / "stage2", stored / "dist" / "gme-tiny-v1" / "model", logged):
        made = Embedder.load(locate(str(folder))).encode(TEXTS)
        np.testing.assert_allclose(made, vectors_of(stored), atol=1e-5)


def _is_second(artifacts: Path) -> bool:
    manifest = read_manifest(artifacts / "artifacts" / "stage2")
    assert manifest is not None
    return manifest.content == resolve_model(artifacts.parents[6], NAME).digest


def test_the_release_verifies(stored: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = stored / "dist" / "gme-tiny-v1"
    said = ok(capsys, "release", "verify", folder, "--key", stored / "release.pub")
    assert "19 files as released" in said
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "model" / "model-00002-of-00003.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert run(["release", "verify", str(copy)]) == 1
    assert f"model/{weights.name}: content changed" in capsys.readouterr().err


def test_the_champion_is_served(stored: Path) -> None:
    """Where the workspace lies now, though MLflow's addresses are those of where it lay."""
    service = Service("champion", Embedder.load(resolve_model(stored, NAME).folder), RequestLimits(), Batching())
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/embeddings", json={"model": "champion", "input": TEXTS})
    vectors = np.array([entry["embedding"] for entry in answer.json()["data"]])
    np.testing.assert_allclose(vectors, vectors_of(stored), atol=1e-5)


def test_versions_change_places(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of then, and one of now between them; nothing is registered a second time."""
    here = ("--workspace", workspace)
    assert "version 1, previous is version 2" in ok(capsys, "rollback", *here)
    assert "version 2, previous is version 1" in ok(capsys, "promote", 2, *here)
    third = register(workspace, ReleaseConfig(), build_workspace(workspace, seed=3))
    assert (third.version, third.champion, third.created) == ("3", "3", True)
    assert "regression" in " ".join(check.name for check in third.verdict.checks), "judged against the model of then"
    assert "version 2, previous is version 3" in ok(capsys, "rollback", *here)
    champion = resolve_model(workspace, NAME)
    np.testing.assert_allclose(Embedder.load(champion.folder).encode(TEXTS), vectors_of(workspace), atol=1e-5)


def test_a_version_is_released_again(workspace: Path, tmp_path: Path) -> None:
    key = tmp_path / "release.pem"
    public = make_key(key)
    checkout = make_checkout(tmp_path / "checkout")
    made = create_release(workspace, ReleaseConfig(), "v2", key, version="2", checkout=checkout)
    again = verify_release(made.folder, public).record
    before = verify_release(workspace / "dist" / "gme-tiny-v1").record
    assert (again.model, again.tasks, again.datasets) == (before.model, before.tasks, before.datasets)


def test_vectors_are_refused_with_what_to_do(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They don't say by which files of a model they were made."""
    assert run(["serve", "--workspace", str(stored), "--corpus", str(stored / "vectors"), "--port", "0"]) == 2
    message = capsys.readouterr().err
    assert "another version of GME Foundry" in message
    assert "`gme embed --input TABLES --output ANOTHER`" in message
