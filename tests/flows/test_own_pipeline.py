"""A corpus of one's own goes the whole way of the default run: to a registered model that searches it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from uuid import UUID

import pytest
from support.small import GME, Small

from gme_cli.main import run
from gme_data.items import TASK_TYPES
from gme_data.scores import read_report_scores

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "examples" / "own-corpus" / "own.yaml"
QUICK = [
    *("--set", "stage_1.phases.0.steps=2", "--set", "baselines.systems=[random, untrained, bm25]"),
    *("--set", "baselines.starter=null", "--set", "baselines.scoring.resamples=100"),
    *("--set", "evaluation.scoring.resamples=100", "--set", "release.promotion=promotion.yaml"),
]


class Own(Small):
    """A workspace for the example corpus."""

    def command(self, *arguments: str) -> list[str]:
        suites = f"evaluation.suites=[held-out, {{tasks: {self.labelled}}}]"
        return [
            *(str(GME), *arguments, "--config", str(OWN), "--workspace", str(self.workspace), *QUICK),
            *("--set", suites),
        ]

    @property
    def labelled(self) -> Path:
        """A folder of labelled tasks, one in BEIR's layout."""
        return self.workspace / "labelled"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    workspace = tmp_path_factory.mktemp("own")
    (workspace / "promotion.yaml").write_text("above_baselines: []\n")
    made = Own(workspace)
    task = made.labelled / "weather"
    task.mkdir(parents=True)
    (task / "corpus.jsonl").write_text('{"_id": "1", "text": "a storm from the north"}\n{"_id": "2", "text": "fog"}\n')
    (task / "queries.jsonl").write_text('{"_id": "a", "text": "wind"}\n{"_id": "b", "text": "mist"}\n')
    (task / "qrels.trec").write_text("a 0 1 1\nb 0 2 1\n")
    return made


def test_it_is_validated_judged_registered_versioned_and_searched(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    made = own.json("pipeline")
    assert (made["passed"], made["model"], made["version"], made["champion"]) == (True, "gme-signal-flags", "1", "1")
    assert list(made["steps"]) == ["corpus", "synthesize", "baselines", "validate", "train-1", "evaluate", "report"]
    assert set(made["types"]) == set(TASK_TYPES)
    folders = {path.relative_to(own.workspace).as_posix() for path in own.workspace.glob("*/pipelines/*")}
    assert folders == {f"{home}/pipelines/signal-flags" for home in ("data", "checkpoints", "runs", "metrics")}
    assert (own.workspace / "data.dvc").is_file()
    tasks = read_report_scores(own.workspace / "reports" / "latest").tasks
    assert {task.name: task.suite for task in tasks if task.suite != "held-out"} == {"weather": "labelled"}
    assert next(task for task in tasks if task.name == "weather").baselines.keys() == {"random", "untrained", "BM25"}

    found = own.json_here("search", "a signal flag", "--in", "name-t2i", "--out", str(own.workspace / "page.html"))
    assert found["model"] == "gme-signal-flags v1 (champion)"
    assert any("signal flag" in hit["caption"] for hit in found["hits"])
    other = ["search", "x", "--alias", "champion@signal-flags", "--config", str(OWN), "--dry-run"]
    assert run([*other, "--workspace", str(own.workspace)]) == 0
    assert "question-t2t with gme-signal-flags v1" in capsys.readouterr().out
    assert run([*other, "--in", "nmae-t2i", "--workspace", str(own.workspace)]) == 2
    assert "Did you mean 'name-t2i'" in capsys.readouterr().err


def test_a_rerun_does_nothing_until_a_file_changes(own: Own) -> None:
    again = own.json("pipeline")
    assert all(step["reused"] for step in again["steps"].values())
    assert (again["created"], again["version"]) == (False, "1")
    states = own.json_here("plan")
    assert {state["state"] for state in states} == {"done"}
    assert {state["name"]: state["inputs"] for state in states}["train-1"] == ["synthesize"]


def test_prefect_has_the_graph_the_name_and_the_log(own: Own) -> None:
    with sqlite3.connect(own.workspace / "runs" / "prefect" / "prefect.db") as database:
        names = [name for (name,) in database.execute("SELECT name FROM flow_run")]
        tasks = database.execute("SELECT id, name, task_inputs FROM task_run").fetchall()
        lines = [line for (line,) in database.execute("SELECT message FROM log")]
    assert all(name.startswith("signal-flags 20") for name in names)
    step_of = {UUID(id_): name.rpartition("-")[0] for id_, name, _ in tasks}
    arrows = {
        name.rpartition("-")[0]: {step_of[UUID(source["id"])] for source in json.loads(inputs)["inputs"]}
        for _, name, inputs in tasks
        if not name.startswith("register")
    }
    assert arrows == {state["name"]: set(state["inputs"]) for state in own.json_here("plan")}
    assert any(line.startswith("train: 2/2 steps") for line in lines), "a step's progress is in its log"


def test_data_and_model_are_assets_with_their_digests(own: Own) -> None:
    with sqlite3.connect(own.workspace / "runs" / "prefect" / "prefect.db") as database:
        succeeded = "SELECT resource, payload FROM events WHERE event = 'prefect.asset.materialization.succeeded'"
        rows = database.execute(succeeded).fetchall()
    found = {json.loads(resource)["prefect.resource.id"]: json.loads(payload) for resource, payload in rows}
    home = own.workspace / "checkpoints/pipelines/signal-flags/stage1"
    assert found.keys() >= {"gme://signal-flags/data/pipelines/signal-flags/synthetic"}
    digest = found["gme://signal-flags/checkpoints/pipelines/signal-flags/stage1"]["sha256"]
    assert digest == json.loads((home / "_manifest.json").read_text())["content"]


def test_a_suite_without_its_data_stops_a_run_before_it_begins(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    missing = ["--set", f"evaluation.suites=[{{suite: umrb, datasets: [SciFact], data: {own.workspace / 'none'}}}]"]
    assert run([*own.command("pipeline")[1:], *missing]) == 2
    told = capsys.readouterr().err
    assert "The data of SciFact, of the suite umrb, are not in" in told
    assert "gme umrb fetch --suite umrb --dataset 'SciFact'" in told
    assert run([*own.command("pipeline", "--dry-run")[1:], *missing]) == 0
    assert "The data of SciFact, of the suite umrb" in capsys.readouterr().out
