"""Random kills of a whole pipeline: of everything it started, or of any single process; the end is as without them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from hardening.plugin import seed, whole
from support.small import HERE, Small

from gme_data.events import append_event, read_events
from gme_data.steps import HISTORY

KILLS_A_ROUND = 5
ROUNDS = 10 if whole() else 2
LONGEST_SECONDS = 90.0
"""A pipeline that was not killed by then is killed then; undisturbed it needs about as long."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return workspace(tmp_path_factory.mktemp("undisturbed")).json("pipeline")


def workspace(folder: Path) -> Small:
    shutil.copy(HERE / "promotion.yaml", folder)
    return Small(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(
            number,
            marks=pytest.mark.hardening("kills", f"K{number}", f"{KILLS_A_ROUND} kills at random over one pipeline"),
        )
        for number in range(1, ROUNDS + 1)
    ],
)
def test_random_kills_leave_the_same_end(
    number: int, undisturbed: dict[str, Any], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    choices = random.Random(f"{seed()}-{number}")
    small = workspace(tmp_path)
    done = [kill_once(small, choices) for _ in range(KILLS_A_ROUND)]
    result = small.json("pipeline")
    record_property("kills", "; ".join(done))
    assert contents(result) == contents(undisturbed)
    assert (result["version"], result["champion"]) == ("1", "1")
    assert leftovers(small.workspace) == []
    assert running(small.workspace) == {}
    assert done_twice(small.workspace) == []


def kill_once(small: Small, choices: random.Random) -> str:
    """Start the pipeline, wait, kill everything or one process of it; what was killed, in words."""
    with (small.workspace / "killed.log").open("ab") as log:
        process = subprocess.Popen(small.command("pipeline"), stdout=log, stderr=log, start_new_session=True)
        wait = choices.uniform(1, LONGEST_SECONDS)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            pass
        else:
            return "none, it had ended"
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        victims = family if choices.random() < 0.5 else [choices.choice(family)]
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        # Where a single process was killed, the others end or go on by themselves; then the rest of this try goes, too.
        try:
            process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        psutil.wait_procs(family, timeout=30)
    return f"{'all' if len(victims) > 1 else 'one'} after {wait:.0f} s"


def contents(result: dict[str, Any]) -> dict[str, str]:
    return {name: step["content"] for name, step in result["steps"].items()}


def leftovers(folder: Path) -> list[str]:
    """Scratch that nobody will use again, and processes that outlived their run."""
    files = [
        path for path in folder.rglob("*") if path.name.endswith((".part", ".old")) or path.parent.name == ".staging"
    ]
    processes = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or ())
    ]
    return [str(path) for path in files] + processes


def running(folder: Path) -> dict[str, int]:
    """How many runs MLflow and Prefect believe to be at work."""
    questions = {
        "runs/mlflow/mlflow.db": "select count(*) from runs where status = 'RUNNING'",
        "runs/prefect/prefect.db": "select count(*) from flow_run where state_type in ('RUNNING', 'PENDING')",
    }
    counts = {}
    for name, question in questions.items():
        with closing(sqlite3.connect(folder / name)) as database:
            [(count,)] = database.execute(question)
        if count:
            counts[name] = count
    return counts


def done_twice(folder: Path) -> list[str]:
    """Steps that were begun for a key after their output for it had been published."""
    twice = []
    for log in sorted(folder.glob(f"runs/steps/*/{HISTORY}")):
        published: set[str] = set()
        for event in read_events(log):
            if event["kind"] == "begun" and event["key"] in published:
                twice.append(log.parent.name)
            if event["kind"] == "published":
                published.add(event["key"])
    return twice


def test_the_judges_of_this_file_see_what_they_look_for(tmp_path: Path) -> None:
    (tmp_path / ".staging" / "x").mkdir(parents=True)
    (tmp_path / "a.part").touch()
    assert len(leftovers(tmp_path)) == 2
    sleeper = subprocess.Popen(["tail", "-f", "/dev/null", str(tmp_path / "a.part")])
    try:
        time.sleep(0.1)
        assert len(leftovers(tmp_path)) == 3
    finally:
        sleeper.kill()
        sleeper.wait()
    for name, table, column in (("mlflow", "runs", "status"), ("prefect", "flow_run", "state_type")):
        database = tmp_path / "runs" / name / f"{name}.db"
        database.parent.mkdir(parents=True)
        with closing(sqlite3.connect(database)) as made:
            made.execute(f"create table {table} ({column} text)")
            made.execute(f"insert into {table} values ('RUNNING')")  # noqa: S608 - constants
            made.commit()
    assert set(running(tmp_path)) == {"runs/mlflow/mlflow.db", "runs/prefect/prefect.db"}
    log = tmp_path / "runs/steps/corpus" / HISTORY
    for kind in ("begun", "begun", "published"):
        append_event(log, kind, key="a")
    assert done_twice(tmp_path) == []
    append_event(log, "begun", key="a")
    assert done_twice(tmp_path) == ["corpus"]
