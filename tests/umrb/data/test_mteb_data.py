"""Every family of datasets end to end in its upstream schema: mteb's own classes read it, we score it, mteb agrees."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upstream import NAMES, TASKS, write_task

from gme_data.errors import FoundryError
from gme_embedder.embedder import Embedder
from umrb.data.loading import load_suite_task
from umrb.data.mteb_data import instruction_of, mteb_task
from umrb.data.sides import unchanged
from umrb.registry import Dataset, load_suite
from umrb.scoring.result_files import MTEB_METRICS, read_result, results_folder
from umrb.suite import SuiteConfig, run_suite
from umrb.systems.base import DenseSystem, Encoder
from umrb.systems.mteb_model import MtebEmbedder
from umrb.systems.mteb_system import mteb_system
from umrb.systems.vectors import VectorStore

SIZES = f"{len(NAMES)} query rows"


def dataset_of(task: str) -> Dataset:
    return next(dataset for dataset in load_suite("umrb") if task in dataset.tasks)


@pytest.fixture
def model(tiny: Embedder) -> MtebEmbedder:
    prompts = {task: instruction_of(dataset) or "" for dataset in load_suite("umrb") for task in dataset.tasks}
    return MtebEmbedder(tiny, name="team/tiny", revision="0123", instructions=prompts)


def ours(tiny: Embedder, store: VectorStore) -> DenseSystem:
    def encode(items: Any, instruction: str | None, images: Any) -> np.ndarray:
        return tiny.encode(items, instruction, images)

    return DenseSystem("tiny", Encoder("tiny", encode), store)


@pytest.mark.parametrize("name", TASKS)
def test_mteb_and_we_score_the_same(name: str, tmp_path: Path, model: MtebEmbedder, tiny: Embedder) -> None:
    write_task(tmp_path / "data", name)
    task = mteb_task(name, tmp_path / "data")
    theirs = mteb.evaluate(
        model, task, cache=None, encode_kwargs={"show_progress_bar": False}, show_progress_bar=False
    ).task_results[0].scores[dataset_of(name).split][0]  # fmt: skip

    dataset = dataset_of(name)
    loaded = load_suite_task(dataset, name, tmp_path / "data")
    assert all("expected" in defect for defect in loaded.defects)  # the sizes, which are ours
    card = loaded.task.card
    assert (card.task_type, card.metric, card.queries, card.pool) == (dataset.task_type, dataset.metric, 8, 8)
    store = VectorStore(tmp_path / "vectors")
    for system in (ours(tiny, store), mteb_system(model, store, task.metadata)):
        scores = system.score(loaded.task, MTEB_METRICS, 1000).metrics
        for metric in MTEB_METRICS:
            # mteb keeps five decimals of most; what lies just between two of them may be rounded to either.
            assert theirs[metric] == pytest.approx(scores[metric].mean(), abs=5.1e-6), metric


def test_a_run_leaves_files_that_mteb_reads(tmp_path: Path, model: MtebEmbedder, tiny: Embedder) -> None:
    for name in ("SciFact", "VidoreTatdqaRetrieval"):
        write_task(tmp_path / "data", name)
    config = SuiteConfig(
        datasets=("SciFact", "TAT-DQA"), data=tmp_path / "data", output=tmp_path / "out", allow_defects=True
    )
    meta = model.mteb_model_meta
    system = ours(tiny, VectorStore(tmp_path / "vectors"))
    run = run_suite(config, meta, lambda loaded: system)
    assert run.scored == ("SciFact", "VidoreTatdqaRetrieval")
    cached = mteb.ResultCache(config.home).load_task_result("VidoreTatdqaRetrieval", meta)
    record = read_result(results_folder(config.home, meta) / "VidoreTatdqaRetrieval.json")
    assert record is not None
    assert cached.get_score() == pytest.approx(record.score.value, abs=1e-6)
    assert cached.dataset_revision == record.data_revision
    assert record.prompt == "Find a screenshot that relevant to the user's question."
    assert (record.score.pool, record.score.metric) == (8, "ndcg_at_5")
    assert any(f"{SIZES}, 1,663 expected" in defect for defect in record.defects)
    # The same fields, but for those that are NaN, which is no JSON; and mteb itself finds nothing to do.
    evaluated = mteb.evaluate(model, mteb_task("SciFact", tmp_path / "data"), cache=None, show_progress_bar=False)
    written = json.loads((results_folder(config.home, meta) / "SciFact.json").read_text())
    theirs = evaluated.task_results[0].scores["test"][0]
    numbers = {name for name, value in theirs.items() if not isinstance(value, float) or math.isfinite(value)}
    assert set(written["scores"]["test"][0]) == numbers
    assert set(written) == {*evaluated.task_results[0].model_dump(), "umrb"}
    task = mteb_task("SciFact", tmp_path / "data")
    repeated = mteb.evaluate(
        model, task, cache=mteb.ResultCache(config.home), overwrite_strategy="only-cache", show_progress_bar=False
    )
    assert repeated.task_results[0].get_score() == pytest.approx(run.records[0].score.scores["ndcg_at_10"], abs=1e-6)


def test_only_what_is_missing_is_scored_again(tmp_path: Path, model: MtebEmbedder, tiny: Embedder) -> None:
    write_task(tmp_path / "data", "SciFact")
    write_task(tmp_path / "data", "NIGHTSI2IRetrieval")
    config = SuiteConfig(
        datasets=("SciFact", "NIGHTS"), data=tmp_path / "data", output=tmp_path / "out", allow_defects=True
    )
    system = ours(tiny, VectorStore(tmp_path / "vectors"))
    assert len(run_suite(config, model.mteb_model_meta, lambda _: system).scored) == 2
    assert run_suite(config, model.mteb_model_meta, lambda _: system).scored == ()
    path = results_folder(config.home, model.mteb_model_meta) / "SciFact.json"
    before = json.loads(path.read_text())["umrb"]["score"]
    path.unlink()
    repeated = run_suite(config, model.mteb_model_meta, lambda _: system)
    assert repeated.scored == ("SciFact",)
    record = read_result(path)
    assert record is not None and record.encoded == 0
    assert json.loads(path.read_text())["umrb"]["score"] == before
    with pytest.raises(FoundryError, match="Results are there"):
        run_suite(config.model_copy(update={"overwrite": "never"}), model.mteb_model_meta, lambda _: system)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lost": ["d2", "d3"]}, r"relevant document 'd2', 'd3' of 2 queries is not in the pool"),
        ({"twice": "d1"}, r"document id 'd1' stand\(s\) more than once"),
        ({"empty": "d4"}, r"document 'd4' hold\(s\) neither text nor picture"),
    ],
)
def test_defects_are_found_and_the_task_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, model: MtebEmbedder, tiny: Embedder
) -> None:
    """The first is mteb#5165: judgements of OVEN and InfoSeek that point outside of the pool."""
    name = "OVENIT2TRetrieval"
    write_task(tmp_path / "data", name, **changes)
    system = ours(tiny, VectorStore(tmp_path / "vectors"))
    config = SuiteConfig(datasets=(name,), data=tmp_path / "data", output=tmp_path / "out")
    run = run_suite(config, model.mteb_model_meta, lambda _: system)
    assert (run.scored, run.records) == ((), ())
    assert any(re.search(message, defect) for defect in run.refused[name]), run.refused[name]
    forced = run_suite(config.model_copy(update={"allow_defects": True}), model.mteb_model_meta, lambda _: system)
    assert forced.records[0].defects == run.refused[name]
    if "lost" in changes:  # what can't be found counts against the model, as in trec_eval
        assert forced.records[0].score.scores["recall_at_100"] == pytest.approx(6 / 8)


def test_documents_in_two_tasks_are_encoded_once(tmp_path: Path, model: MtebEmbedder, tiny: Embedder) -> None:
    for name in ("SciFact", "NQ", "FEVER"):
        write_task(tmp_path / "data", name)
    config = SuiteConfig(
        datasets=("SciFact", "NQ", "FEVER"), data=tmp_path / "data", output=tmp_path / "out", allow_defects=True
    )
    system = ours(tiny, VectorStore(tmp_path / "vectors"))
    encoded = {
        record.score.name: record.encoded
        for record in run_suite(config, model.mteb_model_meta, lambda _: system).records
    }
    # Its documents and its queries; then its queries alone, which have another instruction.
    assert sorted(encoded.values()) == [8, 8, 16]


def test_data_that_changed_are_read_again_by_mteb_too(tmp_path: Path) -> None:
    """The cache of `datasets` would give out what a folder of that name held before."""
    for lost in ([], ["d7"]):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        write_task(tmp_path / "data", "SciFact", lost=lost)
        task = mteb_task("SciFact", tmp_path / "data")
        task.load_data()
        assert len(task.dataset["default"]["test"]["corpus"]) == len(NAMES) - len(lost)


def test_digests_that_are_kept_are_those_of_the_data_at_hand(tmp_path: Path) -> None:
    """Else a corpus that was exchanged would be scored by the vectors of what stood there before."""
    folder = write_task(tmp_path / "data", "SciFact")
    cache = tmp_path / "digests"

    def digests() -> list[bytes]:
        loaded = load_suite_task(dataset_of("SciFact"), "SciFact", tmp_path / "data", cache=cache)
        return [*loaded.task.docs.digests(unchanged)]

    before = digests()
    for path in cache.glob("*.npy"):
        path.write_bytes(b"torn")
    assert digests() == before
    path = folder / "corpus" / "corpus-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**row, "text": row["text"] + "!"} for row in rows]), path)
    assert not set(digests()) & set(before)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "data", "SciFact")
    (folder / "corpus" / "corpus-00000-of-00001.parquet").unlink()
    with pytest.raises(FoundryError, match="The data of SciFact can't be read") as caught:
        load_suite_task(dataset_of("SciFact"), "SciFact", tmp_path / "data")
    assert "gme umrb fetch --dataset SciFact" in (caught.value.hint or "")
