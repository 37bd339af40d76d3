"""A real server with the real deployments: a schedule fires, a worker takes the run, and it closes what is dead."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.serve import running_schedules
from flows.sweep import PROCESS, is_gone, sign

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600


def ask(url: str, path: str, body: Any) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/{path}", data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def ended_process() -> str:
    """The sign of a process that is gone."""
    code = "from flows.sweep import sign; print(sign())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def begun(url: str, process: str) -> str:
    """A flow run that says it is running; its id."""
    flow = ask(url, "flows/", {"name": "stand-in"})["id"]
    state = {"type": "RUNNING", "name": "Running"}
    return str(ask(url, "flow_runs/", {"flow_id": flow, "state": state, "labels": {PROCESS: process}})["id"])


def states(url: str, body: dict[str, Any]) -> list[str]:
    return [run["state_type"] for run in ask(url, "flow_runs/filter", body)]


def test_a_process_is_known_by_more_than_its_number() -> None:
    mine = sign()
    machine, pid, began = mine.rsplit(":", 2)
    assert is_gone(mine) is False
    assert is_gone(f"{machine}:{pid}:{int(began) - 60}") is True
    assert is_gone(f"elsewhere:{pid}:{began}") is None


@pytest.mark.slow
def test_a_schedule_fires_and_its_run_closes_what_is_dead(tmp_path: Path) -> None:
    file = ROOT / "flows" / "prefect.yaml"
    every_minute = tmp_path / "prefect.yaml"
    every_minute.write_text(file.read_text().replace("*/15 * * * *", "* * * * *"))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with running_schedules(tmp_path, file=every_minute) as url:
        names = {deployment["name"] for deployment in ask(url, "deployments/filter", {})}
        assert {"weekly", "synthesize", "train-1", "evaluate", "starter", "study", "sweep"} <= names
        dead, alive = begun(url, ended_process()), begun(url, sign())
        finished = {
            "deployments": {"name": {"any_": ["sweep"]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not states(url, finished):
            assert time.monotonic() < deadline, (tmp_path / "runs/prefect/worker-cpu.log").read_text()[-3000:]
            time.sleep(1)
        assert states(url, {"flow_runs": {"id": {"any_": [dead]}}}) == ["CRASHED"]
        assert states(url, {"flow_runs": {"id": {"any_": [alive]}}}) == ["RUNNING"]
        weekly = {"deployments": {"name": {"any_": ["weekly"]}}}
        assert set(states(url, weekly)) == {"SCHEDULED"}
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert not left
