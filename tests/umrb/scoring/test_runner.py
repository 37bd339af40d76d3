from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES
from gme_data.parquet import read_rows
from gme_data.scores import SYSTEMS, SystemScores, overall, read_systems, type_means, write_systems
from umrb.baselines import raw_pixels
from umrb.config import EvaluationConfig, ScoringConfig
from umrb.data.tasks import NumberedTask
from umrb.scoring.evaluator import Evaluator
from umrb.scoring.run_files import QUERY_SCHEMA, RUN_SCHEMA
from umrb.systems.base import DenseSystem, QueryScores
from umrb.systems.chance import ChanceSystem
from umrb.systems.vectors import VectorStore

SCORING = ScoringConfig(resamples=100)


class Counted(DenseSystem):
    """Raw pixels that count the tasks they are asked for, and die at the one named."""

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        encoded_tasks.append(task.card.name)
        if task.card.name in deadly:
            raise KeyboardInterrupt
        return super().score(task, metrics, depth)


encoded_tasks: list[str] = []
deadly: set[str] = set()


@pytest.fixture
def pixels(tmp_path: Path) -> Counted:
    encoded_tasks.clear()
    deadly.clear()
    return Counted("pixels", raw_pixels(21), VectorStore(tmp_path / ".vectors"))


def run(system: DenseSystem | ChanceSystem, corpus: Path, folder: Path) -> SystemScores:
    return Evaluator(EvaluationConfig(scoring=SCORING), corpus, folder).score(system, "1")


def test_a_killed_run_goes_on_with_the_task_it_was_at(pixels: Counted, corpus: Path, tmp_path: Path) -> None:
    deadly.add("colour-it2i")
    with pytest.raises(KeyboardInterrupt):
        run(pixels, corpus, tmp_path)
    deadly.clear()
    scores = run(pixels, corpus, tmp_path)
    assert encoded_tasks == ["colour-i2i", "colour-it2i", "colour-it2i", "colour-it2it"]
    assert [task.name for task in scores.tasks] == ["colour-i2i", "colour-it2i", "colour-it2it"]


def test_scores_agree_with_the_files_beside_them(pixels: Counted, corpus: Path, tmp_path: Path) -> None:
    score = run(pixels, corpus, tmp_path).by_name["colour-i2i"]
    folder = tmp_path / "systems" / "pixels"
    values = read_rows(folder / "queries" / "colour-i2i.parquet", QUERY_SCHEMA)
    assert score.value == pytest.approx(np.mean([row["value"] for row in values]))
    assert score.interval[0] <= score.value <= score.interval[1]
    assert score.metric == "hit_rate_at_5"
    hits = [row["first_relevant"] is not None and row["first_relevant"] <= 5 for row in values]
    assert hits == [row["value"] == 1 for row in values]
    ranked = read_rows(folder / "runs" / "colour-i2i.parquet", RUN_SCHEMA)
    assert len(ranked) == score.queries * SCORING.run_depth
    by_rank = [row["rank"] for row in ranked]
    assert by_rank == list(range(1, SCORING.run_depth + 1)) * score.queries
    found_first = {row["query_id"] for row in ranked if row["rank"] == 1 and row["doc_id"][2:] == row["query_id"][2:]}
    assert len(found_first) / score.queries == pytest.approx(score.scores["hit_rate_at_1"])


def test_subsets_are_a_partition_of_the_score(pixels: Counted, corpus: Path, tmp_path: Path) -> None:
    score = run(pixels, corpus, tmp_path).by_name["colour-i2i"]
    assert set(score.subsets) == {"dark", "light"}
    assert sum(s.queries for s in score.subsets.values()) == score.queries
    mean = sum(s.value * s.queries for s in score.subsets.values()) / score.queries
    assert mean == pytest.approx(score.value)


def test_chance_is_five_in_twelve(corpus: Path, tmp_path: Path) -> None:
    scores = run(ChanceSystem(), corpus, tmp_path)
    assert len(scores.tasks) == len(TASK_TYPES)
    assert scores.by_name["colour-t2vd"].value == pytest.approx(5 / 12)


def test_type_score_is_the_mean_of_its_datasets_and_overall_counts_each_once(corpus: Path, tmp_path: Path) -> None:
    tasks = run(ChanceSystem(), corpus, tmp_path).tasks
    extra = tasks[0].model_copy(update={"name": "another", "dataset": "another", "value": 1.0})
    listed = [*tasks, extra]
    assert type_means(listed)["T->T"] == pytest.approx((tasks[0].value + 1) / 2)
    assert list(type_means(reversed(listed))) == list(type_means(listed))
    assert overall(listed) == pytest.approx(sum(task.value for task in listed) / len(listed))
    halves = [extra.model_copy(update={"name": name, "value": value}) for name, value in (("a", 0.2), ("b", 0.6))]
    assert overall([tasks[0], *halves]) == pytest.approx((tasks[0].value + 0.4) / 2)  # two tasks of one dataset


def test_scores_survive_the_disk(corpus: Path, tmp_path: Path) -> None:
    scores = run(ChanceSystem(), corpus, tmp_path)
    write_systems(tmp_path, [scores])
    assert read_systems(tmp_path) == (scores,)


def test_unreadable_scores_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / SYSTEMS).write_text("{}")
    with pytest.raises(FoundryError, match=r"systems\.json") as caught:
        read_systems(tmp_path)
    assert "gme evaluate" in (caught.value.hint or "")
