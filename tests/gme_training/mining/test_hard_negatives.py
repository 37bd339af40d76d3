from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from support.catalogs import catalog_of

from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.images import ImageStore
from gme_data.parquet import read_table
from gme_data.steps import StepContext
from gme_embedder.embedder import Embedder
from gme_embedder.modeling.precision import native_precision
from gme_training.config import MiningConfig
from gme_training.mining.report import PLOT, REPORT, SCORES
from gme_training.model.calibrate import calibrate_final_norm, sample_items
from gme_training.step import mine

PRECISION = native_precision("bfloat16", "cpu")  # what mining scores in


@pytest.fixture(scope="module")
def model(small_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    Embedder.fresh(small_config().model, 1).save(folder)
    return folder


@pytest.fixture(scope="module")
def mined(model: Path, world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mined")
    config = MiningConfig(sources=("question", "shape", "not-there"), num_negatives=3)
    counts = mine(config, {**world, "model": model}, StepContext(folder, "key", folder))
    assert counts["with_negatives"] == 60
    return folder


def test_negatives_are_of_the_source_and_never_positives(mined: Path, examples):
    after = read_examples(mined / "train")
    assert [example.id for example in after] == [example.id for example in examples]
    positives = {source: {e.positive for e in examples if e.source == source} for source in ("question", "shape")}
    for example in after:
        if example.source == "shape-name":
            assert example.negatives == ()
            continue
        assert len(set(example.negatives)) == 3
        assert set(example.negatives) <= positives[example.source] - {example.positive}


def test_negatives_are_the_nearest_by_the_model(mined: Path, model: Path, world: dict[str, Path]):
    questions = [example for example in read_examples(mined / "train") if example.source == "question"]
    embedder, images = Embedder.load(model, dtype=PRECISION), ImageStore([world["corpus"] / "images"])
    queries = embedder.encode([e.query for e in questions], questions[0].instruction, images)
    pool = embedder.encode([e.positive for e in questions], None, images)
    scores = queries @ pool.T
    np.fill_diagonal(scores, -2)
    for row, example in enumerate(questions):
        expected = np.sort(scores[row])[::-1][:3]
        got = sorted((scores[row][[e.positive for e in questions].index(n)] for n in example.negatives), reverse=True)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_scores_and_report_say_what_was_kept_and_passed_over(mined: Path, model: Path, world: dict[str, Path]):
    table = read_table(mined / SCORES).to_pylist()
    mined_by_id = {e.id: e for e in read_examples(mined / "train") if e.negatives}
    assert {row["example"] for row in table} == mined_by_id.keys()
    embedder, images = Embedder.load(model, dtype=PRECISION), ImageStore([world["corpus"] / "images"])
    first = mined_by_id[table[0]["example"]]
    query = embedder.encode([first.query], first.instruction, images)
    recomputed = embedder.encode([first.positive, *first.negatives], None, images) @ query[0]
    np.testing.assert_allclose([table[0]["positive_score"], *table[0]["scores"]], recomputed, atol=5e-3)  # bfloat16
    assert table[0]["scores"] == sorted(table[0]["scores"], reverse=True)
    report = json.loads((mined / REPORT).read_text())
    assert report.keys() == {"question", "shape"}
    for source, facts in report.items():
        scored = [row for row in table if mined_by_id[row["example"]].source == source]
        assert facts["negatives"] == sum(facts["negative_counts"]) == sum(len(row["scores"]) for row in scored)
        assert facts["harder"] == sum(score > row["positive_score"] for row in scored for score in row["scores"])
        assert 0 < facts["passed"]["positive"] <= facts["examples"]
    assert (mined / PLOT).read_text().startswith("<?xml")


def test_the_nearest_are_skipped_and_what_beats_the_positive_is_left_out(
    model: Path, world: dict[str, Path], tmp_path: Path
):
    def rows(name: str, **changes: object) -> list[dict[str, object]]:
        folder = tmp_path / name
        folder.mkdir()
        config = MiningConfig.model_validate({"sources": ["question"], "num_negatives": 2, **changes})
        mine(config, {**world, "model": model}, StepContext(folder, "key", folder))
        return read_table(folder / SCORES).to_pylist()

    longer, skipped = rows("longer", num_negatives=4), rows("skipped", range_min=2)
    assert [row["scores"] for row in skipped] == [row["scores"][2:] for row in longer]
    for row in rows("margin", absolute_margin=0.01):
        assert all(score <= row["positive_score"] - 0.01 + 1e-6 for score in row["scores"])
    rejected = json.loads((tmp_path / "margin" / REPORT).read_text())["question"]["passed"]
    assert rejected["above margin"] > 0


def test_limits_that_leave_nothing_are_refused():
    with pytest.raises(ValidationError, match="leave none"):
        MiningConfig(range_min=30, range_max=30)


@pytest.fixture(scope="module")
def teacher(small_config, world: dict[str, Path], examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, whose cosines are spread out."""
    folder, images = tmp_path_factory.mktemp("teacher"), ImageStore([world["corpus"] / "images"])
    embedder = Embedder.fresh(small_config().model, 5)
    calibrate_final_norm(embedder, [item for example in examples for item in (example.query, example.positive)], images)
    embedder.save(folder)
    return folder


Mine = Callable[..., Path]


@pytest.fixture
def mine_questions(model: Path, world: dict[str, Path], tmp_path: Path) -> Mine:
    """Mines the questions into a folder of the given name, with the given changes."""

    def run(name: str, **changes: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = MiningConfig.model_validate({"sources": ["question"], "range_max": 36, "num_negatives": 36, **changes})
        mine(config, {**world, "model": model}, StepContext(folder, "key", folder))
        return folder

    return run


def test_what_the_teacher_finds_nearly_as_good_as_the_positive_is_left_out(
    mine_questions: Mine, teacher: Path, world: dict[str, Path]
):
    rates_all = {"model": str(teacher), "relative_margin": -1e9}
    rated = read_table(mine_questions("rated", teacher=rates_all) / SCORES).to_pylist()
    shares = np.concatenate([np.array(row["teacher_scores"]) / row["teacher_positive_score"] for row in rated])
    margin = 1 - float(np.median(shares))
    folder = mine_questions("filtered", teacher={**rates_all, "relative_margin": margin}, num_negatives=4)
    filtered = {row["example"]: row for row in read_table(folder / SCORES).to_pylist()}
    rejected = 0
    for row in rated:
        limit = (1 - margin) * row["teacher_positive_score"]
        good = [position for position, score in enumerate(row["teacher_scores"]) if score <= limit]
        considered = good[3] + 1 if len(good) > 3 else len(row["scores"])
        rejected += considered - len(good[:4])
        assert filtered[row["example"]]["scores"] == [row["scores"][position] for position in good[:4]]
        assert filtered[row["example"]]["teacher_scores"] == [row["teacher_scores"][position] for position in good[:4]]
    reasons = json.loads((folder / REPORT).read_text())["question"]["passed"]
    assert reasons["above the teacher's share"] == rejected > 0


def test_the_scores_of_the_teacher_are_those_of_its_model(mine_questions: Mine, teacher: Path, world: dict[str, Path]):
    folder = mine_questions("rated", teacher={"model": str(teacher)}, num_negatives=3)
    embedder, images = Embedder.load(teacher, dtype=PRECISION), ImageStore([world["corpus"] / "images"])
    by_id = {example.id: example for example in read_examples(folder / "train")}
    for row in read_table(folder / SCORES).to_pylist():
        example = by_id[row["example"]]
        query = embedder.encode([example.query], example.instruction, images)[0]
        recomputed = embedder.encode([example.positive, *example.negatives], None, images) @ query
        np.testing.assert_allclose([row["teacher_positive_score"], *row["teacher_scores"]], recomputed, atol=0.02)
        assert all(score <= 0.95 * row["teacher_positive_score"] for score in row["teacher_scores"])


def test_without_a_teacher_nothing_is_added_and_one_that_drops_nothing_changes_nothing(
    mine_questions: Mine, teacher: Path
):
    plain = mine_questions("plain", num_negatives=3)
    encoded = mine_questions("asked", num_negatives=3, teacher={"model": str(teacher), "relative_margin": -1e9})
    for path in [*(plain / "train").iterdir(), plain / REPORT, plain / PLOT]:
        assert (encoded / path.relative_to(plain)).read_bytes() == path.read_bytes()
    names = read_table(plain / SCORES).column_names
    assert names == ["example", "positive_score", "scores"]
    assert read_table(encoded / SCORES).select(names) == read_table(plain / SCORES)


def test_a_teacher_that_is_not_there_is_named_before_anything_is_encoded(mine_questions: Mine, tmp_path: Path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(FoundryError, match=rf"mining\.teacher\.model: .*{nowhere}"):
        mine_questions("failed", teacher={"model": str(nowhere)})
    assert not (tmp_path / "failed" / ".vectors").exists()


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.hardening("faults", "F6", "kill -9 in mining")
def test_a_killed_mining_goes_on_from_its_vectors(
    model: Path, teacher: Path, world: dict[str, Path], tmp_path: Path, monkeypatch, taught: bool
):
    teachers = {"model": str(teacher), "relative_margin": -1e9} if taught else None
    config = MiningConfig(sources=("question", "shape"), num_negatives=2, shard=8, range_max=36, teacher=teachers)
    encoded: list[int] = []
    encode = Embedder.encode

    def counted(self, items, *args, **kwargs):
        encoded.append(len(items))
        if sum(encoded) > (130 if taught else 60) and killed:  # in the middle of the candidates of the first source
            raise KeyboardInterrupt
        return encode(self, items, *args, **kwargs)

    monkeypatch.setattr(Embedder, "encode", counted)
    killed = True
    with pytest.raises(KeyboardInterrupt):
        mine(config, {**world, "model": model}, StepContext(tmp_path, "key", tmp_path))
    first, killed = sum(encoded[:-1]), False
    encoded.clear()
    mine(config, {**world, "model": model}, StepContext(tmp_path, "key", tmp_path))
    every = 36 + 36 + 24 + 24  # every query and every candidate once
    assert first + sum(encoded) == (2 * every if taught else every)


def test_calibration_spreads_a_fresh_model_and_is_the_same_everywhere(small_config, world: dict[str, Path], examples):
    images = ImageStore([world["corpus"] / "images"])
    items = sample_items(catalog_of(examples).items, 40, seed=3)
    assert items == sample_items(catalog_of(examples).items, 40, seed=3)
    weights, cosines = [], []
    for _ in range(2):
        embedder = Embedder.fresh(small_config().model, 1)
        before = embedder.encode(items, None, images)
        calibrate_final_norm(embedder, items, images)
        after = embedder.encode(items, None, images)
        cosines.append([(vectors @ vectors.T).mean() for vectors in (before, after)])
        weights.append(embedder.model.language.norm.weight.detach().numpy().copy())
    np.testing.assert_array_equal(weights[0], weights[1])
    assert cosines[0][0] > 0.95
    assert cosines[0][1] < 0.8
