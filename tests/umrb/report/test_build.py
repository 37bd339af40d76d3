"""The report of a suite from real runs of two tiny models, read by people in Chromium, and the two compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from upstream import write_task

from gme_cli.main import run as gme
from gme_data.errors import FoundryError
from gme_embedder.embedder import Embedder
from umrb.registry import load_suite, published
from umrb.report.build import write_suite_report
from umrb.report.facts import read_suite
from umrb.report.gap import by_modality, gaps, plot_gap
from umrb.scoring.cards import VectorSample
from umrb.scoring.compare import compare, sign_flip_p
from umrb.suite import SuiteConfig

NAMES = ("SciFact", "VisualNewsT2IRetrieval", "VidoreTatdqaRetrieval", "OVENIT2TRetrieval", "NIGHTSI2IRetrieval")
DATASET_FLAGS = [flag for name in NAMES for flag in ("--dataset", name)]


@pytest.fixture(scope="module")
def runs(tiny: Embedder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Results of two models, run by the command itself."""
    home = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        write_task(home / "data", name)
    tiny.save(home / "first")
    other = Embedder.load(home / "first")
    with torch.no_grad():
        other.model.language.norm.weight.copy_(torch.ones_like(other.model.language.norm.weight))
    other.save(home / "second")
    results = {}
    for model in ("first", "second"):
        flags = ["--model", str(home / model), "--data", str(home / "data"), "--output", str(home / "out")]
        assert gme(["umrb", "run", *DATASET_FLAGS, *flags, "--allow-defects"]) == 0
        (results[model],) = (home / "out" / "umrb" / "results" / f"local__{model}").iterdir()
    return results


def test_the_report_holds_every_number_and_needs_no_network(runs: dict[str, Path]) -> None:
    folder = runs["first"] / "report"
    scores = json.loads((folder / "scores.json").read_text())
    page = (folder / "report.html").read_text()
    text = (folder / "report.md").read_text()
    Check().feed(page)
    (suite,) = scores["suites"]
    scored = {name: row for name, row in suite["datasets"].items() if row["value"] is not None}
    assert set(scored) == set(NAMES)
    assert not suite["complete"]
    for row in scored.values():
        for shown in (page, text):
            assert f"{100 * row['value']:.2f}" in shown
    assert set(suite["types"]) == {dataset.task_type for dataset in load_suite("umrb")}
    for row in published():
        assert f"{row.model} (published)" in text
        assert f"{row.average:.2f}" in page
    assert "does not stand beside a published one" in page
    assert "defects" in page
    assert set(scores["modality_gap"]) == {"T-I", "T-IT", "I-IT"}
    assert {task["name"] for task in scores["tasks"]} == set(NAMES)
    for name in ("umrb-datasets", "umrb-types", "gap"):
        assert {path.suffix for path in (folder / "plots").glob(f"{name}.*")} == {".svg", ".png", ".csv"}
    assert "data:image/webp" in page


class Check(HTMLParser):
    """Nothing is asked of anyone else, and no id stands twice."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        results = dict(attrs)
        for name in ("src", "href", "xlink:href"):
            value = results.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, value
        if results.get("id"):
            assert results["id"] not in self.ids, results["id"]
            self.ids.add(str(results["id"]))


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "light"), (390, "dark")])
def test_the_page_as_people_see_it(runs: dict[str, Path], look: Callable[..., Any], width: int, scheme: str) -> None:
    page = look(runs["first"] / "report" / "report.html", width, scheme)
    assert page.locator("tr.published").count() == len(published())
    assert page.locator("tr.ours").count() == 1
    assert page.locator("figure svg").count() == 3


def test_compare_by_the_command(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert gme(["umrb", "compare", str(runs["first"]), str(runs["second"]), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert {row["task"] for row in results["tasks"]} == set(NAMES)
    for row in results["tasks"]:
        low, high = row["interval"]
        assert low <= row["second"] - row["first"] <= high
        assert 0 < row["p"] <= 1
    assert gme(["umrb", "compare", str(runs["first"]), str(runs["second"])]) == 0
    assert "Holm" in capsys.readouterr().out


def test_a_model_compared_with_itself_is_even(runs: dict[str, Path]) -> None:
    results = compare(runs["first"], runs["first"], load_suite("umrb"))
    assert results.wins == (0, 0)
    assert {row.p for row in results.tasks} == {1.0}
    assert {row.interval for row in results.tasks} == {(0.0, 0.0)}


def test_what_was_scored_on_other_data_does_not_compare(runs: dict[str, Path], tmp_path: Path) -> None:
    changed = shutil.copytree(runs["second"], tmp_path / "changed")
    path = changed / "SciFact.json"
    raw = json.loads(path.read_text())
    raw["umrb"]["score"]["pool"] += 1
    path.write_text(json.dumps(raw))
    with pytest.raises(FoundryError, match="SciFact does not compare: documents is 8"):
        compare(runs["first"], changed, load_suite("umrb"))
    with pytest.raises(FoundryError, match="No results in"):
        compare(runs["first"], tmp_path, load_suite("umrb"))


def test_the_randomisation_test_is_exact_enough() -> None:
    """Ten ones: of all 1,024 signs two are as extreme."""
    assert sign_flip_p(np.ones(10), seed=0) == pytest.approx(2 / 1024, abs=0.0015)
    assert sign_flip_p(np.array([1.0, -1.0] * 20), seed=0) == 1.0
    rng = np.random.default_rng(0)
    ps = np.array([sign_flip_p(rng.standard_normal(30), seed=seed, flips=500) for seed in range(200)])
    assert 0.02 < (ps <= 0.05).mean() < 0.1  # under no difference, 5 % of the tests say one


def test_the_gap_of_known_vectors(tmp_path: Path) -> None:
    axes = np.eye(4, dtype=np.float32)
    apart = [VectorSample("a", axes[[0, 0]], axes[[1, 1]], ("T", "I"))]
    (gap,) = gaps(by_modality(apart))
    assert gap.pair == ("T", "I")
    assert gap.distance == pytest.approx(2**0.5)
    together = [VectorSample("a", axes[[0, 1]], axes[[1, 0]], ("T", "I"))]
    assert gaps(by_modality(together))[0].distance == pytest.approx(0, abs=1e-6)
    assert plot_gap(by_modality([VectorSample("a", axes, axes, ("T", "T"))]), tmp_path) is None
    assert (plot_gap(by_modality(apart), tmp_path) or "").startswith("<svg")


def test_a_selection_has_no_published_rows_and_a_report_of_its_own(runs: dict[str, Path]) -> None:
    config = SuiteConfig(suite="umrb-partial", output=runs["first"].parents[3])
    assert (config.home.name, config.report_name) == ("umrb", "report-umrb-partial")
    facts = read_suite(config.label, config.chosen(), runs["first"])
    (table,) = facts.suites
    assert table.published == ()
    assert table.summary.expected == 18
    assert set(table.summary.datasets) == {"SciFact", "VidoreTatdqaRetrieval", "NIGHTSI2IRetrieval"}


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="No results in"):
        write_suite_report("umrb", load_suite("umrb"), tmp_path, tmp_path / "report")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["umrb", "run", "-d", "SciFacts", "--model", "."], "Did you mean 'SciFact'"),
        (["umrb", "list", "--suite", "umbr"], "Did you mean 'umrb'"),
        (["umrb", "plan", "--gpus", "8xA100"], "unknown accelerator"),
        (["umrb", "run", "-d", "SciFact", "--model", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gme(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_list_and_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gme(["umrb", "list", "--json"]) == 0
    listed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(listed["datasets"]) == 47
    assert listed["datasets"][0]["published"] == {"GME-2B": 61.52, "GME-7B": 64.6}
    assert gme(["evaluate", "--suite", "umrb", "--dry-run", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "the paper states 400 A100 hours for GME-7B" in shown
    for dataset in load_suite("umrb"):
        assert all(task in shown for task in dataset.tasks)
    assert gme(["umrb", "fetch", "--dry-run", "-d", "SciFact"]) == 0
    assert "cc-by-nc-4.0" in capsys.readouterr().out


def test_a_plan_counts_what_is_there(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    home = runs["first"].parents[4]
    flags = ["--shapes", str(home / "first"), "--output", str(home / "out"), "--json"]
    assert gme(["umrb", "plan", "-d", "SciFact", "-d", "NQ", *flags]) == 0
    tasks = {task["task"]: task for task in json.loads(capsys.readouterr().out)["tasks"]}
    assert (tasks["SciFact"]["done"], tasks["NQ"]["done"]) == (True, False)
    assert (tasks["SciFact"]["queries"]["reused"], tasks["SciFact"]["docs"]["reused"]) == (8, 8)
    assert tasks["NQ"]["docs"]["reused"] == 0
