"""A run is mirrored while it works; a tracker that is down loses nothing and doubles nothing."""

from __future__ import annotations

import socket
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from followed_run import DESCRIPTION, history, log_steps, runs_of, start_following, wait_until

from gme_release.config import ReleaseConfig
from gme_release.errors import TrackerError
from gme_release.registry.registration import register
from gme_release.run_facts import RunFacts
from gme_release.tracking.client import open_client
from gme_release.tracking.follower import HOME, Follower
from gme_release.tracking.tags import FOLLOWED, RECORD


def test_mirrors_while_it_works_and_is_adopted(facts: RunFacts, config: ReleaseConfig) -> None:
    workspace = facts.workspace
    log_steps(workspace, range(2))  # of another run, long ago
    follower = start_following(workspace)
    log_steps(workspace, range(3))
    wait_until(lambda: "4 train-1" in runs_of(workspace) and len(history(workspace, "4 train-1", "loss/all")) == 3)
    live = runs_of(workspace)
    parent, child = live["tiny 2026-01-01"], live["4 train-1"]
    assert (parent.info.status, child.info.status) == ("RUNNING", "RUNNING")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"lora.rank": "8"}
    plot = workspace / "loss.svg"
    plot.write_text("<svg/>")
    follower.end_step("train-1", "FINISHED", counts={"examples": 7}, files=[plot, workspace / "none.svg"])
    plot.write_text("of the next run")
    follower.flush()
    found = register(workspace, config, _named(facts, follower.name))
    follower.close(None)
    assert found.run_id == parent.info.run_id
    ended = runs_of(workspace)
    assert {run.info.status for run in ended.values()} == {"FINISHED"}
    assert ended["tiny 2026-01-01"].data.tags[RECORD]
    client = open_client(workspace)
    kept = client.download_artifacts(child.info.run_id, "plots/loss.svg", str(workspace))
    assert Path(kept).read_text() == "<svg/>"
    assert not list((workspace / HOME).glob("*")), "what was told and registered is kept no longer"


def _named(facts: RunFacts, name: str) -> RunFacts:
    return replace(facts, tags={FOLLOWED: name})


def test_a_tracker_that_is_down_gets_all_of_it_once_later(
    facts: RunFacts, config: ReleaseConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = facts.workspace
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("GME_MLFLOW_URI", nobody)
    monkeypatch.setenv("GME_TRACKER_WAIT", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    follower = start_following(workspace)
    log_steps(workspace, range(3))
    follower.end_step("train-1", "FINISHED")
    with pytest.raises(TrackerError, match="did not answer") as refused:
        follower.flush()
    assert "Nothing is lost" in str(refused.value.hint)
    follower.close("FAILED")

    monkeypatch.delenv("GME_MLFLOW_URI")
    monkeypatch.setenv("GME_TRACKER_WAIT", "60")
    again = Follower(workspace, DESCRIPTION)
    again.begin_step("evaluate", "8 evaluate", "b" * 64, {})
    again.end_step("evaluate", "FINISHED")
    again.flush()
    assert again.name == follower.name
    found = register(workspace, config, _named(facts, again.name))
    again.close(None)
    runs = runs_of(workspace)
    assert sorted(runs) == ["4 train-1", "8 evaluate", "tiny 2026-01-01"]
    assert runs["tiny 2026-01-01"].info.run_id == found.run_id
    assert history(workspace, "4 train-1", "loss/all") == [(0, 9.0), (1, 8.0), (2, 7.0)]


def test_told_twice_is_there_once_and_a_resumed_training_goes_on(facts: RunFacts) -> None:
    workspace = facts.workspace
    follower = start_following(workspace)
    log_steps(workspace, range(4))
    follower.close("KILLED")
    [box] = (workspace / HOME).iterdir()
    (box / "sent").unlink()  # as if it had been killed before it could note what was sent
    with (box / "outbox.jsonl").open("a") as lines:
        lines.write('{"kind": "met')  # and in the middle of a line
    again = start_following(workspace)
    log_steps(workspace, range(2, 6))  # from its checkpoint on
    again.end_step("train-1", "FINISHED")
    again.flush()
    again.close("FAILED")
    assert [step for step, _ in history(workspace, "4 train-1", "loss/all")] == [0, 1, 2, 3, 4, 5]
    assert len(runs_of(workspace)) == 2


def test_another_run_closes_what_a_dead_one_left(facts: RunFacts) -> None:
    workspace = facts.workspace
    follower = start_following(workspace)
    follower._stop_threads()  # killed: nothing says that it ended
    other = Follower(workspace, replace(DESCRIPTION, key="o" * 64, name="other"))
    other.begin_step("corpus", "1 corpus", "c" * 64, {})
    other.end_step("corpus", "FINISHED")
    other.flush()
    other.close("FAILED")
    statuses = {name: run.info.status for name, run in runs_of(workspace).items()}
    assert statuses == {
        "tiny 2026-01-01": "KILLED", "4 train-1": "KILLED", "other": "FAILED", "1 corpus": "FINISHED",
    }  # fmt: skip


def test_a_locked_database_is_waited_for(facts: RunFacts) -> None:
    workspace = facts.workspace
    lock = sqlite3.connect(workspace / "runs/mlflow/mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    follower = start_following(workspace)
    log_steps(workspace, range(3))
    follower.end_step("train-1", "FINISHED")
    time.sleep(1)
    lock.execute("ROLLBACK")
    lock.close()
    follower.flush()
    follower.close("FAILED")
    assert [step for step, _ in history(workspace, "4 train-1", "loss/all")] == [0, 1, 2]
