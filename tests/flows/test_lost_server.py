"""Prefect's server is killed under a pipeline: what the run did counts, and nothing stays open behind it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from httpx import ConnectError
from support import lost_server
from support.small import CONFIG

import flows.pipeline
from flows.config import load_pipeline
from flows.pipeline import PipelineResult
from gme_data.errors import FoundryError

QUICK = {"PREFECT_CLIENT_MAX_RETRIES": "1"}


def run(workspace: Path, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, lost_server.__file__, str(workspace), what]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True, check=False
    )


def states(workspace: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(workspace / "runs" / "prefect" / "prefect.db")) as records:
        flow_runs = records.execute("SELECT 'flow', state_type FROM flow_run ORDER BY created")
        return [*flow_runs.fetchall(), *records.execute("SELECT 'task', state_type FROM task_run ORDER BY created")]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Prefect does in place of a pipeline; the last thing is raised."""
    does: list[Any] = []

    def pipeline(*_: object, **__: object) -> None:
        flows.pipeline._ended.extend(does[:-1])
        raise does[-1]

    monkeypatch.setattr(flows.pipeline, "pipeline", pipeline)
    return does


def test_what_is_done_counts_and_what_is_not_is_told(told: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    result, lost = PipelineResult({}, SimpleNamespace(), 1.0), ConnectError("at postgresql://user:CANARY@host")
    config, workspace = load_pipeline(CONFIG), Path()
    told[:] = [result, lost]
    assert flows.pipeline.run_pipeline(config, workspace) is result
    assert "could not be told how the run ended (ConnectError)" in caplog.text
    told[:] = [lost]
    with pytest.raises(FoundryError, match="does not answer") as refused:
        flows.pipeline.run_pipeline(config, workspace)
    assert refused.value.exit_code == 1
    assert "CANARY" not in f"{refused.value} {refused.value.hint} {caplog.text}"
    for ends in ([FoundryError("no disk")], [ValueError("ours")], [FoundryError("no disk"), lost]):
        told[:] = ends
        with pytest.raises(type(ends[0]), match=str(ends[0])):
            flows.pipeline.run_pipeline(config, workspace)


@pytest.mark.slow
@pytest.mark.hardening("faults", "F28", "Prefect's server killed in the middle")
def test_the_result_counts_and_the_next_run_closes_what_was_left_open(tmp_path: Path) -> None:
    lost = run(tmp_path, "lost", **QUICK)
    assert (lost.returncode, lost.stdout) == (0, "7\n"), lost.stderr[-3000:]
    assert "Prefect could not be told how the run ended" in lost.stderr
    assert ("flow", "RUNNING") in states(tmp_path)
    well = run(tmp_path, "well")
    assert (well.returncode, well.stdout) == (0, "7\n"), well.stderr[-3000:]
    assert [state for kind, state in states(tmp_path) if kind == "flow"] == ["CRASHED", "COMPLETED"]
    assert "RUNNING" not in dict(states(tmp_path)).values()


@pytest.mark.slow
@pytest.mark.hardening("faults", "F28", "Prefect's server killed in the middle")
def test_a_killed_server_is_started_again_and_told_the_end(tmp_path: Path) -> None:
    done = run(tmp_path, "killed")
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr[-3000:]
    assert "was killed (signal 9) and is started again" in done.stderr
    assert [state for kind, state in states(tmp_path) if kind == "flow"] == ["COMPLETED"]


@pytest.mark.slow
@pytest.mark.hardening(
    "attacks", "A15", "Credentials in addresses and variables, looked for wherever something is shown or kept"
)
def test_what_a_failing_step_says_is_kept_by_prefect_without_its_password(tmp_path: Path) -> None:
    failed = run(tmp_path, "leaks")
    assert failed.returncode == 1
    assert "ValueError: can't connect to postgresql+asyncpg://me:***@db/prefect" in failed.stderr
    assert states(tmp_path) == [("flow", "FAILED"), ("task", "FAILED")]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"me:***@db/prefect" in path.read_bytes() for path in files), "Prefect was told of it"
    assert [str(path) for path in files if lost_server.CANARY.encode() in path.read_bytes()] == []
    assert lost_server.CANARY not in failed.stdout + failed.stderr


@pytest.mark.slow
@pytest.mark.hardening("faults", "F16", "Prefect runs of a killed pipeline")
def test_what_a_killed_run_left_open_is_closed_with_its_tasks(tmp_path: Path) -> None:
    assert run(tmp_path, "died").returncode == -9
    assert states(tmp_path) == [("flow", "RUNNING"), ("task", "RUNNING")]
    assert run(tmp_path, "well").returncode == 0
    assert states(tmp_path) == [("flow", "CRASHED"), ("flow", "COMPLETED"), ("task", "CRASHED"), ("task", "COMPLETED")]
