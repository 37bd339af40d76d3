"""A run that is certain to fail at its end does not begin: neither by hand, nor as a plan, nor by the schedule."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.small import CONFIG, HERE

from flows.config import load_pipeline
from flows.preflight import require_ready
from flows.server import prefect_environment
from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.urls import sqlite_path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copy(HERE / "promotion.yaml", tmp_path)
    return tmp_path


def test_all_reasons_at_once(workspace: Path) -> None:
    require_ready(load_pipeline(CONFIG), workspace)
    config = load_pipeline(CONFIG, ["release.remote_url=data/store", "release.tracked=[data,nothing]"])
    with pytest.raises(FoundryError, match="lies in data") as refused:
        require_ready(config, workspace)
    assert "no step writes into nothing" in str(refused.value)
    assert "The steps write into checkpoints, data, runs" in str(refused.value.hint)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("verb", [["pipeline"], ["pipeline", "--dry-run"], ["register", "--dry-run"]])
def test_every_door_refuses(verb: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "promotion.yaml").unlink()
    assert run([*verb, "--config", str(CONFIG), "--workspace", str(workspace)]) == 2
    assert "promotion.yaml" in capsys.readouterr().err
    assert not (workspace / "runs").exists()


def test_the_doctor_tells_the_same(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--json", "--config", str(CONFIG), "--workspace", str(workspace)]
    run(arguments)
    states = {found["what"]: found["state"] for found in json.loads(capsys.readouterr().out)}
    assert {states[what] for what in ("tracker", "artifacts", "remote", "policy", "tracked")} == {"ok"}
    assert run([*arguments, "--set", "release.promotion=none.yaml"]) == 1
    found = {one["what"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["policy"]["state"], found["remote"]["state"]) == ("bad", "ok")


def test_the_doctor_without_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["doctor", "--json"])
    found = {one["what"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["records"]["state"] == "note"


def test_prefects_database_is_that_of_the_workspace_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "we ird?#%41+ü:x"
    workspace.mkdir()
    names = ("PREFECT_HOME", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    settings = prefect_environment(workspace)
    home = workspace / "runs" / "prefect"
    assert sqlite_path(settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"]) == home / "prefect.db"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://host/prefect")
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in prefect_environment(workspace)
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "other"))  # whose database is not to be that of the workspace
    assert prefect_environment(workspace)["PREFECT_HOME"] == str(tmp_path / "other")
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in prefect_environment(workspace)


@pytest.mark.slow
def test_a_flow_runs_in_a_workspace_of_any_name(tmp_path: Path) -> None:
    """Prefect for real: its server makes its database in the workspace, and nowhere else."""
    import subprocess
    import sys

    workspace = tmp_path / "we ird?#%41+ü:x"
    workspace.mkdir()
    code = (
        "from pathlib import Path\nfrom flows.server import prefect_workspace\n"
        f"with prefect_workspace(Path({str(workspace)!r})):\n"
        "    from prefect import flow\n    print(flow(lambda: 7, name='seven')())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.strip() == "7", done.stderr[-2000:]
    assert (workspace / "runs/prefect/prefect.db").stat().st_size > 0
    assert [found.name for found in tmp_path.iterdir()] == [workspace.name]
