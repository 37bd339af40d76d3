"""A pipeline run that is followed, and what MLflow knows of it; helpers of the tests that follow runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from gme_data.events import append_event
from gme_release.tracking.client import open_client
from gme_release.tracking.follower import Follower, RunDescription

DESCRIPTION = RunDescription("k" * 64, "tiny 2026-01-01", "gme-tiny", {"seed": 1}, {"gme.code": "c" * 64})


def log_steps(workspace: Path, steps: range) -> None:
    for step in steps:
        append_event(
            workspace / "runs/steps/train-1/events.jsonl",
            "step",
            step=step,
            loss=9.0 - step,
            source="flag",
            accuracy=0.5,
        )


def runs_of(workspace: Path) -> dict[str, Run]:
    client = open_client(workspace)
    experiment = client.get_experiment_by_name("gme-tiny")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])} if experiment else {}


def history(workspace: Path, run: str, metric: str) -> list[tuple[int, float]]:
    client: MlflowClient = open_client(workspace)
    run_id = runs_of(workspace)[run].info.run_id
    return [(point.step, point.value) for point in client.get_metric_history(run_id, metric)]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def start_following(workspace: Path) -> Follower:
    follower = Follower(workspace, DESCRIPTION)
    follower.begin_step("train-1", "4 train-1", "a" * 64, {"lora": {"rank": 8}})
    return follower
