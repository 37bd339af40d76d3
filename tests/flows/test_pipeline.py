"""The chain from end to end on a small world: it finishes, a rerun does nothing, a kill loses what was in flight."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.small import CONFIG, Small

from flows.chains import pipeline_chain
from flows.config import load_pipeline
from gme_data.items import TASK_TYPES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("pipeline")
Finished = tuple[Small, dict[str, Any]]


def test_the_chain_ends_with_a_champion(finished: Finished) -> None:
    _, result = finished
    assert result["passed"]
    assert result["created"]
    assert result["version"] == result["champion"] == "1"
    assert set(result["steps"]) == set(pipeline_chain(load_pipeline(CONFIG)).names)
    assert not any(step["reused"] for step in result["steps"].values())
    assert set(result["types"]) == set(TASK_TYPES)


def test_report_and_scores_are_published(finished: Finished) -> None:
    small, result = finished
    page = Path(result["report"])
    assert page.is_file()
    assert (small.workspace / "reports" / "latest").resolve() == page.parent.resolve()
    html = page.read_text(encoding="utf-8")
    assert "http://" not in html.replace("http://www.w3.org", "")  # one file, nothing fetched
    scores = json.loads((page.parent / "scores.json").read_text())
    assert {task["task_type"] for task in scores["tasks"]} == set(TASK_TYPES)
    assert all(task["pool"] > 0 and task["queries"] > 0 for task in scores["tasks"])


def test_prefect_shows_states_and_artifacts(finished: Finished) -> None:
    small, _ = finished
    with sqlite3.connect(small.workspace / "runs" / "prefect" / "prefect.db") as database:
        rows = database.execute("select name, state_type from task_run").fetchall()
        keys = {key for (key,) in database.execute("select key from artifact")}
    states = {name.rpartition("-")[0]: state for name, state in rows}
    assert {"corpus", "synthesize", "validate", "train-1", "mine", "train-2", "evaluate", "register"} <= set(states)
    assert set(states.values()) == {"COMPLETED"}
    assert {"funnel", "validation", "scores", "verdict"} <= keys


def test_a_second_run_does_nothing(finished: Finished) -> None:
    small, first = finished
    again = small.json("pipeline")
    assert all(step["reused"] for step in again["steps"].values())
    assert {name: step["content"] for name, step in again["steps"].items()} == {
        name: step["content"] for name, step in first["steps"].items()
    }
    assert (again["version"], again["created"], again["run_id"]) == (first["version"], False, first["run_id"])


def test_the_plan_agrees(finished: Finished) -> None:
    small, _ = finished
    assert {item["state"] for item in small.json_here("plan")} == {"done"}
    planned = {item["name"]: item["state"] for item in small.json_here("pipeline", "--new-run", "--dry-run")}
    assert (planned["corpus"], planned["synthesize"], planned["train-1"]) == ("done", "run", "run")
    assert {item["state"] for item in small.json_here("plan")} == {"done"}, "saying so changed nothing"


def test_search_with_the_champion(finished: Finished, tmp_path: Path) -> None:
    small, result = finished
    page = tmp_path / "hits.html"
    found = small.json_here("search", "a flag with a red disc", "--in", "flags", "--top", "3", "--out", str(page))
    assert found["model"] == f"small v{result['version']} (champion)"
    assert len(found["hits"]) == 3
    assert found["hits"][0]["score"] >= found["hits"][2]["score"]
    assert page.read_text().count("data:image/png") == 3
    picture = tmp_path / "disc.png"
    from PIL import Image

    Image.new("RGB", (60, 40), "red").save(picture)
    of_pictures = ("--in", "pictographs", "--top", "2", "--out", str(page))
    assert len(small.json_here("search", "--image", str(picture), *of_pictures)["hits"]) == 2
    refused = small.run("search", "--image", str(tmp_path / "none.png"))
    assert refused.returncode == 2
    assert "none.png" in refused.stderr


@pytest.mark.slow
def test_datasets_are_rebuilt_byte_for_byte(finished: Finished, tmp_path: Path) -> None:
    _, result = finished
    other = Small(tmp_path)
    for verb, name in ((("atlas", "build"), "corpus"), (("synthesize",), "synthesize")):
        assert other.json(*verb)["content"] == result["steps"][name]["content"]


@pytest.mark.hardening("faults", "F1", "kill -9 in synthesis")
@pytest.mark.slow
def test_kill_in_synthesis(finished: Finished, tmp_path: Path) -> None:
    small, result = finished
    other = small.copy(tmp_path / "w", "data/atlas")
    staging = other.workspace / "data" / ".staging"
    other.kill_when(lambda: len(list(staging.glob("synthetic-*/.work/write/*.json"))) >= 2, "synthesize")
    assert not (other.workspace / "data" / "synthetic").exists()
    kept = {path: path.stat().st_mtime_ns for path in staging.glob("synthetic-*/.work/write/*.json")}
    assert kept
    again = other.json("synthesize")
    assert not again["reused"]
    assert again["content"] == result["steps"]["synthesize"]["content"]


@pytest.mark.hardening("faults", "F3", "kill -9 in training, of the tree")
@pytest.mark.slow
def test_kill_in_training_goes_on_from_the_checkpoint(finished: Finished, tmp_path: Path) -> None:
    small, _ = finished
    other = small.copy(tmp_path / "w", "data/atlas", "data/synthetic")
    events = other.workspace / "runs/steps/train-1/events.jsonl"

    def steps() -> list[int]:
        if not events.exists():
            return []
        lines = [json.loads(line) for line in events.read_text().splitlines() if line.endswith("}")]
        return [line["step"] for line in lines if line["kind"] == "step"]

    other.kill_when(lambda: len(steps()) >= 5, "train", "--stage", "1")
    before = steps()
    made = other.json("train", "--stage", "1")
    assert made["counts"]["steps"] == 8
    redone = steps()[len(before) :]
    # A checkpoint every two steps: the rerun starts after the last one, not at the beginning.
    assert redone[-1] == 7
    assert redone[0] >= 2, f"started again at step {redone[0]}"


@pytest.mark.hardening("faults", "F9", "kill -9 between the model and its record")
@pytest.mark.slow
def test_kill_between_save_and_register(finished: Finished, tmp_path: Path) -> None:
    small, result = finished
    runs = [f"runs/{name}" for name in ("validation", "baselines", "evaluation", "report", "prefect")]
    other = small.copy(tmp_path / "w", "data", "checkpoints", *runs)
    database = other.workspace / "runs" / "mlflow" / "mlflow.db"
    other.kill_when(database.exists, "pipeline")
    again = other.json("pipeline")
    assert all(step["reused"] for step in again["steps"].values())
    assert again["version"] == again["champion"] == "1"
    with sqlite3.connect(database) as records:
        assert records.execute("select count(*) from model_versions").fetchone() == (1,)
        statuses = [status for (status,) in records.execute("select status from runs")]
    assert statuses == ["FINISHED"]
    assert again["types"] == result["types"]


@pytest.mark.hardening("faults", "F23", "a dataset damaged, a shard of vectors damaged")
@pytest.mark.slow
def test_a_damaged_dataset_is_made_again(finished: Finished, tmp_path: Path) -> None:
    small, result = finished
    other = small.copy(tmp_path / "w", "data")
    shard = next((other.workspace / "data/synthetic/train").glob("*.parquet"))
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-200])
    refused = other.run("validate")
    assert refused.returncode == 2
    assert shard.name in refused.stderr
    assert "gme synthesize" in refused.stderr
    assert other.json("synthesize")["content"] == result["steps"]["synthesize"]["content"]


@pytest.mark.slow
def test_the_champion_judges_the_pictures_of_the_next_run(finished: Finished, tmp_path: Path) -> None:
    small, result = finished
    first = json.loads((small.workspace / "data/synthetic/funnel.json").read_text())
    assert first["skipped"] == {"picture-score": "no champion is registered yet to judge by"}
    other = small.copy(tmp_path / "w", "data", "runs/mlflow", "runs/steps/synthesize")
    assert other.json("synthesize")["reused"], "a champion alone is no reason to make data anew"
    history = other.workspace / "runs/steps/synthesize/history.jsonl"
    history.unlink()  # nothing says any more who judged, as in a new run
    made = other.json("synthesize")
    assert not made["reused"]
    manifest = json.loads((other.workspace / "data/synthetic/_manifest.json").read_text())
    assert manifest["inputs"]["judge"] == result["steps"]["train-2"]["content"]
    funnel = json.loads((other.workspace / "data/synthetic/funnel.json").read_text())
    assert funnel["skipped"] == {}
    [score] = [step for step in funnel["steps"] if step["step"] == "picture-score"]
    assert score["seen"] > 0
    assert score["kept"] + sum(score["rejected"].values()) == score["seen"]
    assert other.json("synthesize")["reused"], "its rerun keeps the judge"
    states = {item["name"]: item["state"] for item in other.json("plan")}
    assert (states["synthesize"], states["train-1"]) == ("done", "run")


@pytest.mark.slow
def test_a_new_run_is_judged_by_the_champion_and_its_rerun_does_nothing(finished: Finished, tmp_path: Path) -> None:
    small, first = finished
    other = small.copy(tmp_path / "w", "data", "checkpoints", "runs")
    made = other.json("pipeline", "--new-run")
    assert made["steps"]["corpus"]["reused"]
    assert not made["steps"]["synthesize"]["reused"]
    manifest = json.loads((other.workspace / "data/synthetic/_manifest.json").read_text())
    assert manifest["inputs"]["judge"] == first["steps"]["train-2"]["content"]
    # A judge that refuses nothing leaves the data as they were, and the model, and so the version.
    same = made["steps"]["train-2"]["content"] == first["steps"]["train-2"]["content"]
    assert (made["version"] == first["version"]) == same
    again = other.json("pipeline")
    assert all(step["reused"] for step in again["steps"].values())
