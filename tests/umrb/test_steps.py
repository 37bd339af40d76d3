"""The three steps on the small world: real encoders, and the untrained tiny model where a trained one will stand."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES
from gme_data.scores import SYSTEMS, read_systems
from gme_data.steps import StepContext
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from umrb.baselines import run_baselines
from umrb.config import BaselineConfig, EvaluationConfig, LinearProbeConfig, ReportConfig, ScoringConfig
from umrb.evaluation import run_evaluation
from umrb.report.build import build_report

SCORING = ScoringConfig(resamples=100)
MODEL = ModelConfig(text_layers=1)
Publish = Callable[..., Path]
Inputs = dict[str, Path]


def context(folder: Path) -> StepContext:
    folder.mkdir(exist_ok=True)
    return StepContext(folder, "key", folder)


@pytest.fixture(scope="module")
def finished(corpus: Path, publish: Publish, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Inputs of the report: baselines and evaluation of an untrained model, with curves and a funnel."""
    home = tmp_path_factory.mktemp("workspace")
    Embedder.fresh(MODEL, seed=0).save(home / "model")
    points = [
        {"stage": 1, "phase": phase, "source": source, "step": step, "loss": 4 / (step + 1)}
        for phase in ("tower", "mix")
        for source in ("flag", "pictograph")
        for step in range(5)
    ]
    (home / "model" / "curves.json").write_text(json.dumps({"series": points}))
    (home / "synthetic").mkdir()
    stages = [{"step": "question", "seen": 10, "kept": 8, "rejected": {"short": 2}}]
    (home / "synthetic" / "funnel.json").write_text(json.dumps({"steps": stages}))
    inputs = {"corpus": corpus, "model": publish(home / "model", "train-2")}
    inputs["synthetic"] = publish(home / "synthetic", "synthesize")
    config = EvaluationConfig(scoring=SCORING)
    run_evaluation(config, inputs, context(home / "evaluation"))
    inputs["evaluation"] = publish(home / "evaluation", "evaluate", config.model_dump(mode="json"))
    probes = LinearProbeConfig(steps=100, batch_size=16)
    run_baselines(
        BaselineConfig(scoring=SCORING, model=MODEL, linear_probes=probes), inputs, context(home / "baselines")
    )
    inputs["baselines"] = publish(home / "baselines", "baselines")
    return inputs


@pytest.fixture(scope="module")
def report(finished: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    build_report(ReportConfig(), finished, context(folder))
    return folder


def test_the_untrained_model_scores_as_its_own_baseline(finished: Inputs) -> None:
    model = read_systems(finished["evaluation"])[0]
    untrained = {s.system: s for s in read_systems(finished["baselines"])}["untrained"]
    # Same architecture and seed; saved and loaded on one side: the scores must not differ.
    assert [task.scores for task in model.tasks] == [task.scores for task in untrained.tasks]


def test_every_baseline_is_scored_where_it_can_see_both_sides(finished: Inputs) -> None:
    systems = {s.system: [t.task_type for t in s.tasks] for s in read_systems(finished["baselines"])}
    text, picture = ["T->T", "T->IT", "IT->T", "IT->IT"], ["I->I", "IT->I", "IT->IT"]
    assert systems.pop("random") == systems.pop("untrained")
    assert systems.pop("heads") == ["I->I", "T->I", "I->T"]
    assert systems == {"BM25": text, "MiniLM": text, "pixels": picture, "EfficientNet": picture}


def test_frozen_encoders_solve_the_easy_world(finished: Inputs) -> None:
    systems = {s.system: s.by_name for s in read_systems(finished["baselines"])}
    assert systems["MiniLM"]["colour-t2t"].value > 0.9
    # Plain colours are not what ImageNet teaches; a third of them found first is four times chance.
    assert systems["EfficientNet"]["colour-i2i"].scores["hit_rate_at_1"] > 0.3


def test_fused_to_text_tasks_have_a_control(finished: Inputs) -> None:
    controls = read_systems(finished["evaluation"])[0].controls
    assert [control.name for control in controls] == ["colour-it2t"]


def test_fused_tasks_are_scored_on_each_part_alone(finished: Inputs, report: Path) -> None:
    model, *reduced = read_systems(finished["evaluation"])
    fused = [task.name for task in model.tasks if "IT" in task.task_type]
    assert {system.system: [task.name for task in system.tasks] for system in reduced} == {
        "model, text only": fused,
        "model, picture only": fused,
    }
    page = (report / "report.html").read_text(encoding="utf-8")
    section = page[page.index("Which part of a fused item") : page.index("The model by subset of queries")]
    for system in reduced:
        for task in system.tasks:
            assert f">{task.value:.3f}</td>" in section
    # What a reduced item is, the unit tests of views tell; here it must make a difference somewhere.
    assert any(task.scores != model.by_name[task.name].scores for system in reduced for task in system.tasks)


def test_the_markdown_twin_holds_the_table_of_types(report: Path) -> None:
    payload = json.loads((report / "scores.json").read_text())
    text = (report / "report.md").read_text(encoding="utf-8")
    for kind, mean in payload["types"].items():
        assert f"| {kind.replace('->', '→')} | 1 | {mean:.3f} |" in text
    assert f"**{payload['overall']:.3f}**" in text


def test_published_rows_stand_apart(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    start = page.index("The paper's table")
    table = page[start : page.index("</details>", start)]
    assert "nothing here compares with it" in table
    assert "67.44" in table
    assert "67.44" not in page.replace(table, "")


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_the_page_as_people_see_it(report: Path, look: Callable[..., Any], width: int, scheme: str) -> None:
    page = look(report / "report.html", width, scheme)
    assert page.locator("figure svg").count() == 4
    assert page.locator("article.example").count() > 0


def test_scores_json_has_what_the_register_reads(report: Path) -> None:
    payload: dict[str, Any] = json.loads((report / "scores.json").read_text())
    assert set(payload["types"]) == set(TASK_TYPES)
    for task in payload["tasks"]:
        assert {"name", "task_type", "metric", "value", "interval", "scores", "queries", "pool", "baselines"} <= set(
            task
        )
        assert 0 <= task["interval"][0] <= task["value"] <= task["interval"][1] <= 1
        assert task["scores"][task["metric"]] == task["value"]
        assert {"random", "untrained"} <= set(task["baselines"])
    assert payload["overall"] == pytest.approx(sum(t["value"] for t in payload["tasks"]) / len(payload["tasks"]))


class Page(HTMLParser):
    """Collects what a page would fetch, its ids and its nesting faults."""

    VOID = frozenset({"meta", "img", "br", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} and not (value or "").startswith(("data:", "#")):
                self.fetched.append(f"{tag} {value}")
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_is_whole_fetches_nothing_and_is_small(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert len(page.ids) == len(set(page.ids))
    assert "url(http" not in text
    assert "@import" not in text
    assert len(text) < 3_000_000


def test_the_page_says_where_a_baseline_wins(report: Path) -> None:
    payload = json.loads((report / "scores.json").read_text())
    text = (report / "report.html").read_text(encoding="utf-8")
    lost = [task for task in payload["tasks"] if max(task["baselines"].values()) > task["value"]]
    assert lost, "an untrained model that beats MiniLM would be news"
    sentence = re.search(r"A baseline scores higher on (\d+)[^:]*:</p>\s*<ul>(.*?)</ul>", text, re.DOTALL)
    assert sentence is not None
    assert int(sentence[1]) == len(lost)
    assert all(task["name"] in sentence[2] for task in lost)


def test_every_plot_has_its_data_beside_it(report: Path) -> None:
    names = sorted(path.stem for path in (report / "plots").glob("*.svg"))
    assert names == ["curves", "funnel", "gap", "tasks", "types"]
    for name in names:
        assert (report / "plots" / f"{name}.png").stat().st_size > 1000
        with (report / "plots" / f"{name}.csv").open() as handle:
            assert list(csv.DictReader(handle))
    payload = json.loads((report / "scores.json").read_text())
    with (report / "plots" / "tasks.csv").open() as handle:
        plotted = {row["task"]: float(row["model"]) for row in csv.DictReader(handle)}
    assert plotted == {task["name"]: task["value"] for task in payload["tasks"]}


def test_two_reports_of_the_same_inputs_have_the_same_bytes(finished: Inputs, report: Path, tmp_path: Path) -> None:
    build_report(ReportConfig(), finished, context(tmp_path))
    for path in sorted(p for p in report.rglob("*") if p.is_file()):
        assert (tmp_path / path.relative_to(report)).read_bytes() == path.read_bytes(), path.name


def test_how_long_a_step_took_is_no_part_of_the_report(finished: Inputs, report: Path, tmp_path: Path) -> None:
    slower = {}
    for name, folder in finished.items():
        slower[name] = tmp_path / name
        shutil.copytree(folder, slower[name])
        manifest = json.loads((folder / "_manifest.json").read_text())
        (slower[name] / "_manifest.json").write_text(json.dumps({**manifest, "seconds": manifest["seconds"] + 100}))
    build_report(ReportConfig(), slower, context(tmp_path / "report"))
    assert (tmp_path / "report" / "report.html").read_bytes() == (report / "report.html").read_bytes()


def test_a_model_without_curves_still_gets_a_report(finished: Inputs, publish: Publish, tmp_path: Path) -> None:
    shutil.copytree(finished["model"], tmp_path / "model")
    (tmp_path / "model" / "curves.json").unlink()
    inputs = {**finished, "model": publish(tmp_path / "model", "train-2")}
    build_report(ReportConfig(), inputs, context(tmp_path / "report"))
    assert "without training curves" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_missing_input_is_told_with_the_step_that_makes_it(finished: Inputs, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="has not been made") as caught:
        build_report(ReportConfig(), {**finished, "baselines": tmp_path}, context(tmp_path / "report"))
    assert "gme baselines" in (caught.value.hint or "")


def test_scores_of_different_task_versions_are_not_put_side_by_side(
    finished: Inputs, publish: Publish, tmp_path: Path
) -> None:
    shutil.copytree(finished["baselines"], tmp_path / "baselines")
    scores = (tmp_path / "baselines" / SYSTEMS).read_text().replace('"pool": 12', '"pool": 13')
    (tmp_path / "baselines" / SYSTEMS).write_text(scores)
    with pytest.raises(FoundryError, match="another version of the task"):
        build_report(
            ReportConfig(),
            {**finished, "baselines": publish(tmp_path / "baselines", "baselines")},
            context(tmp_path / "report"),
        )
