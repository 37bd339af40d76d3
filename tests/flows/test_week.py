"""A week of a daily schedule: one slot fired twice, two missed, one behind the gate, one killed; then all is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import week
from support.week import START, fire_day

from flows.slots import is_alive, slot_records
from gme_release.tracking.client import open_client


def fire_and_be_killed(workspace: Path, day: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, week.__file__, str(workspace), str(day)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


@pytest.mark.hardening("faults", "F14", "a week of a schedule with a kill, a closed gate and missed slots")
def test_a_week(tmp_path: Path) -> None:
    assert fire_day(tmp_path, 0, today=0).record.result["version"] == "1"

    assert fire_day(tmp_path, 1, today=1).record.result["version"] == "2"
    twice = fire_day(tmp_path, 1, today=1)
    assert (twice.ran, twice.record.result["version"]) == (False, "2")

    # Nobody is there on the days 2 and 3; on day 4 the three come late, the oldest first.
    assert [fire_day(tmp_path, day, today=4).ran for day in (2, 3, 4)] == [False, False, True]

    closed = fire_day(tmp_path, 5, today=5, good=False)
    assert (closed.record.state, closed.record.result["version"]) == ("gate-closed", None)
    assert "above untrained" in closed.record.detail

    fire_and_be_killed(tmp_path, 6)
    last = slot_records(tmp_path)[-1]
    assert (last.state, last.attempts, is_alive(last, tmp_path)) == ("running", 1, False)
    assert fire_day(tmp_path, 6, today=6).ran
    assert not fire_day(tmp_path, 6, today=6).ran

    assert {(record.slot - START).days: (record.state, record.attempts) for record in slot_records(tmp_path)} == {
        0: ("done", 1),
        1: ("done", 1),
        2: ("skipped", 0),
        3: ("skipped", 0),
        4: ("done", 1),
        5: ("gate-closed", 1),
        6: ("done", 2),
    }
    assert_registry(tmp_path)


def assert_registry(workspace: Path) -> None:
    client = open_client(workspace)
    versions = client.search_model_versions("name = 'gme-tiny'")
    assert sorted(version.version for version in versions) == [1, 2, 3, 4]
    assert len({version.tags["gme.model_digest"] for version in versions}) == len(versions)
    aliases = client.get_registered_model("gme-tiny").aliases
    assert {name: str(version) for name, version in aliases.items()} == {
        "candidate": "4",
        "champion": "4",
        "previous": "3",
    }
    experiment = client.get_experiment_by_name("gme-tiny")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 5  # the days 0, 1, 4, 5 and 6, the killed one once
    of_slots = {record.result["run_id"] for record in slot_records(workspace) if record.state != "skipped"}
    assert of_slots == {run.info.run_id for run in runs}
