"""What judges a pipeline's model: tasks of its corpus, labelled tasks of one's own, published suites; in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from upstream import write_task

from gme_data.errors import FoundryError
from gme_data.scores import read_report_scores, read_systems
from gme_data.steps import StepContext
from gme_data.tasks import load_task
from gme_embedder.embedder import Embedder
from umrb.baselines import run_baselines
from umrb.config import BaselineConfig, EvaluationConfig, ReportConfig, ScoringConfig, Suite
from umrb.data.selection import selected_tasks
from umrb.data.task_folders import unusable_tasks
from umrb.evaluation import run_evaluation
from umrb.report.build import build_report

SCORING = ScoringConfig(resamples=100)


def as_beir(folder: Path, qrels: str = "qrels.trec") -> Path:
    """Four texts and two questions, as people keep them: BEIR's two files, and TREC's judgements."""
    folder.mkdir(parents=True)
    texts = {"1": "a red flag", "2": "a blue river", "3": "green hills", "4": "desert sand"}
    rows = [json.dumps({"_id": id_, "title": "", "text": text}) for id_, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    (folder / "queries.jsonl").write_text('{"_id": "a", "text": "red flag"}\n{"_id": "b", "text": "river"}\n')
    path = folder / qrels
    path.parent.mkdir(exist_ok=True)
    path.write_text("a 0 1 2\na\t0\t3\t0\n\nb Q0 2 1\n")
    return folder


@pytest.fixture
def suites(tmp_path: Path) -> tuple[Suite, ...]:
    as_beir(tmp_path / "mine" / "labelled")
    for name in ("SciFact", "VisualNewsT2IRetrieval"):
        write_task(tmp_path / "umrb", name)
    published = Suite(suite="umrb", datasets=("SciFact", "VisualNewsT2IRetrieval"), data=tmp_path / "umrb")
    return (Suite(), Suite(tasks=tmp_path / "mine"), published)


def test_all_suites_are_scored_by_one_run_beside_baselines_and_on_one_page(
    suites: tuple[Suite, ...], corpus: Path, tiny: Embedder, tmp_path: Path, publish: type[Path]
) -> None:
    tiny.save(tmp_path / "model")
    (tmp_path / "synthetic").mkdir()
    inputs = {
        "corpus": corpus,
        "model": publish(tmp_path / "model", "train-1"),
        "synthetic": publish(tmp_path / "synthetic", "synthesize"),
    }
    config = EvaluationConfig(scoring=SCORING, suites=suites).sealed()
    for name in ("refused", "evaluation", "baselines", "report"):
        (tmp_path / name).mkdir()
    with pytest.raises(FoundryError, match=r"Task SciFact is not whole: .* expected"):  # they are far too small
        run_evaluation(config, inputs, StepContext(tmp_path / "refused", "key", tmp_path))

    scoring = SCORING.model_copy(update={"allow_defects": True})
    config = config.model_copy(update={"scoring": scoring})
    counts = run_evaluation(config, inputs, StepContext(tmp_path / "evaluation", "key", tmp_path))
    assert counts["tasks"] == 12
    inputs["evaluation"] = publish(tmp_path / "evaluation", "evaluate", config.model_dump(mode="json"))
    baselines = BaselineConfig(scoring=scoring, suites=suites, systems=("random", "bm25"))
    run_baselines(baselines, inputs, StepContext(tmp_path / "baselines", "key", tmp_path))
    inputs["baselines"] = publish(tmp_path / "baselines", "baselines")
    words = next(system for system in read_systems(inputs["baselines"]) if system.system == "BM25").by_name
    assert (words["labelled"].value, words["labelled"].suite) == (1.0, "mine")
    assert set(words) >= {"SciFact", "labelled", "colour-t2t"}
    build_report(ReportConfig(), inputs, StepContext(tmp_path / "report", "key", tmp_path))
    scores = read_report_scores(tmp_path / "report")
    assert {task.suite for task in scores.tasks} == {"held-out", "mine", "umrb"}
    assert scores.overall == pytest.approx(sum(task.value for task in scores.tasks) / 12)
    (table,) = scores.suites
    assert (table.suite, table.complete, len(table.datasets)) == ("umrb", False, 47)
    assert table.datasets["SciFact"].value == next(task.value for task in scores.tasks if task.name == "SciFact")
    page = (tmp_path / "report" / "report.html").read_text()
    assert ">labelled<" in page
    assert "Scored in spite of defects in the data" in page
    assert '<tr class="published">' in page


def test_a_labelled_folder_in_beirs_layout_needs_no_card(tmp_path: Path) -> None:
    task = load_task(as_beir(tmp_path / "a", "qrels/test.txt"))
    assert task.qrels == {"a": {"1": 2, "3": 0}, "b": {"2": 1}}
    assert (task.card.task_type, task.card.metric, task.card.queries) == ("T->T", "ndcg_at_10", None)
    with pytest.raises(FoundryError, match=r"no judgements of the split test; there are dev\.qrels"):
        load_task(as_beir(tmp_path / "b", "qrels/dev.qrels"))
    (as_beir(tmp_path / "c") / "qrels.trec").write_text("a 0 1\nb 0 2 many\n")
    with pytest.raises(FoundryError, match=r"qrels\.trec, line 1: .*found 3 columns; .*line 2: .*found 'many'"):
        load_task(tmp_path / "c")
    (as_beir(tmp_path / "tasks" / "d") / "queries.jsonl").unlink()
    assert "for BEIR's layout queries is missing" in unusable_tasks(tmp_path / "tasks")["d"]


def test_what_is_not_there_is_told_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    config = EvaluationConfig(suites=(Suite(suite="umrb", datasets=("NQ", "FEVER"), data=tmp_path),))
    with pytest.raises(FoundryError, match=r"The data of FEVER, NQ, of the suite umrb, are not in") as caught:
        config.sealed()
    assert caught.value.hint == f"gme umrb fetch --suite umrb --dataset 'NQ' --dataset 'FEVER' --data {tmp_path}"


def test_the_digest_names_the_data_of_every_suite_outside(suites: tuple[Suite, ...], tmp_path: Path) -> None:
    assert EvaluationConfig().sealed().digest == ""
    before = EvaluationConfig(suites=suites).sealed()
    assert before.digest == EvaluationConfig(suites=suites).sealed().digest != ""
    (tmp_path / "mine" / "labelled" / "qrels.trec").write_text("a 0 2 1\n")
    assert EvaluationConfig(suites=suites).sealed().digest != before.digest


def test_suites_that_can_not_be_told_apart_or_do_not_exist(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"there is no suite 'umbr'\. Did you mean 'umrb'"):
        EvaluationConfig.model_validate({"suites": ["held-out", "umbr"]})
    with pytest.raises(ValidationError, match="held-out stands twice"):
        EvaluationConfig.model_validate({"suites": ["held-out", "held-out"]})
    as_beir(tmp_path / "mine" / "colour-t2t")
    config = EvaluationConfig(suites=(Suite(), Suite(tasks=tmp_path / "mine")))
    with pytest.raises(FoundryError, match="Two of the suites have a task colour-t2t"):
        selected_tasks(config, corpus)
    named = config.model_copy(update={"suites": (Suite(),), "scoring": ScoringConfig(tasks=("colour-t2x",))})
    with pytest.raises(FoundryError, match=r"No task colour-t2x among those that judge\. Did you mean 'colour-t2"):
        selected_tasks(named, corpus)
