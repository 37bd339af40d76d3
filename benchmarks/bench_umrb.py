"""The benchmark's runner against mteb and pytrec_eval: ``python benchmarks/bench_umrb.py [SECTION ...]``.

* ``metrics``: 10,000 queries of 1,000 hits, one in a hundred scores tied; peers are mteb's scorer and pytrec_eval, each
  with the building of the dicts that it needs.
* ``tasks``: three tasks over one corpus with a random Qwen2-VL; the peer is `mteb.evaluate` around mteb's GME wrapper
  (stock.py).
* ``twins``: two tasks over one corpus, against the same two encoded apart.
* ``search``: the stage after encoding, vectors at hand; the peer is `mteb.evaluate` with an encoder that costs nothing.
* ``warm``: everything kept from a first run; the peer is mteb's CachedEmbeddingWrapper.
* ``memory``: how far the anonymous memory of a process rises, 100,000 and 1,000,000 documents.

Scores must agree before a ratio is printed. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import mteb
import numpy as np
import pytrec_eval
import torch
from bench_umrb_world import (
    RELEVANT,
    Fixed,
    StockModel,
    numbered,
    ours,
    peak_of,
    pulled_apart,
    random_task,
    vectors_of,
    write_corpus,
    write_tasks,
)
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.cache_wrappers import CachedEmbeddingWrapper
from stock import random_embedder
from timing import interleaved_minimum

from gme_data.environment import set_default_env
from gme_embedder.embedder import Embedder
from umrb.data.loading import load_suite_task
from umrb.data.mteb_data import mteb_task
from umrb.data.tasks import NumberedTask
from umrb.metrics import METRICS, Judgements, per_query
from umrb.registry import choose
from umrb.scoring.result_files import MTEB_METRICS
from umrb.systems.base import DenseSystem
from umrb.systems.vectors import VectorStore

CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)
THREE = ("SciFact", "NQ", "FEVER")
SILENT = {"show_progress_bar": False}


def main() -> None:
    """Run the sections that are asked for, all by default."""
    set_default_env()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections: dict[str, Callable[[], None]] = {
        "metrics": metrics,
        "tasks": tasks,
        "twins": twins,
        "search": search,
        "warm": warm,
        "memory": memory,
    }
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        print(peak_of(int(given.peak[0]), Path(given.peak[1])))
        return
    for name in given.sections or sections:
        sections[name]()


def metrics() -> None:
    """Scoring alone."""
    rng = np.random.default_rng(0)
    queries, depth, pool = 10_000, 1000, 100_000
    ranked = np.stack([rng.choice(pool, depth, replace=False) for _ in range(100)])[rng.integers(0, 100, queries)]
    scores = -np.sort(-rng.integers(0, 100 * depth, (queries, depth)).astype(np.float32), axis=1)
    query = np.repeat(np.arange(queries), 2)
    pairs = np.unique(np.stack([query, ranked[query, rng.integers(0, depth, len(query))]], axis=1), axis=0)
    judgements = Judgements(pairs[:, 0], pairs[:, 1], np.ones(len(pairs)), queries)
    names = [f"{kind}_at_{cutoff}" for kind in METRICS for cutoff in CUTOFFS]
    ids = [f"{pool - number:06d}" for number in range(pool)]  # the first number has the last id
    qrels: dict[str, dict[str, int]] = {}
    for one, doc in pairs.tolist():
        qrels.setdefault(str(one), {})[ids[doc]] = 1

    def dicts() -> dict[str, dict[str, float]]:
        return {
            str(number): dict(zip([ids[doc] for doc in rows], values, strict=True))
            for number, (rows, values) in enumerate(zip(ranked.tolist(), scores.tolist(), strict=True))
        }

    kinds = ("map_cut", "ndcg_cut", "recall", "P", "success")
    measures = {f"{kind}.{','.join(map(str, CUTOFFS))}" for kind in kinds}
    found = {}

    def mteb_way() -> None:
        found["mteb"] = calculate_retrieval_scores(dicts(), qrels, list(CUTOFFS))

    def trec_way() -> None:
        found["trec"] = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(dicts())

    def our_way() -> None:
        found["ours"] = per_query(ranked, judgements, names, scores)

    seconds = [spent(mteb_way), spent(trec_way), min(spent(our_way) for _ in range(5))]
    for number in range(0, queries, 97):
        for kind, label in (("ndcg", "ndcg_cut"), ("map", "map_cut"), ("hit_rate", "success")):
            theirs = found["trec"][str(number)][f"{label}_10"]
            assert abs(theirs - found["ours"][f"{kind}_at_10"][number]) < 1e-6
    for cutoff in CUTOFFS:
        assert abs(found["mteb"].ndcg[f"NDCG@{cutoff}"] - found["ours"][f"ndcg_at_{cutoff}"].mean()) < 5.1e-6
        assert abs(found["mteb"].mrr[f"MRR@{cutoff}"] - found["ours"][f"mrr_at_{cutoff}"].mean()) < 1e-6
    show("metrics, 10,000 x 1,000", ("mteb's scorer", "pytrec_eval", "ours"), seconds)


def tasks() -> None:
    """Encoding, search and scoring of three tasks that share a corpus."""
    embedder = pulled_apart(random_embedder())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        warm_up(embedder, home)
        write_tasks(home / "data", THREE, documents=600, queries=24)
        peer, theirs, mine = StockModel(embedder), {}, {}

        def mteb_way() -> None:
            for name in THREE:
                task = mteb_task(name, home / "data")
                scored = mteb.evaluate(peer, task, cache=None, encode_kwargs=SILENT, show_progress_bar=False)
                theirs[name] = scored.task_results[0].get_score()

        def our_way() -> None:
            mine.update(score_all(embedder, home, THREE))

        seconds = interleaved_minimum([mteb_way, our_way], 1)
        print("ndcg@10:", *(f"{name} {theirs[name]:.5f} / {mine[name]:.5f}" for name in THREE))
        assert all(abs(theirs[name] - mine[name]) < 5.1e-6 for name in THREE)
        show("three tasks over one corpus", ("mteb.evaluate", "ours"), seconds)


def twins() -> None:
    """Two tasks over one corpus, against the same two with a store for each."""
    embedder = pulled_apart(random_embedder())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        warm_up(embedder, home)
        write_tasks(home / "data", THREE[:2], documents=1200, queries=4)
        found: dict[bool, dict[str, float]] = {}

        def way(*, apart: bool) -> None:
            found[apart] = score_all(embedder, home, THREE[:2], apart=apart)

        seconds = interleaved_minimum([partial(way, apart=True), partial(way, apart=False)], 1)
        assert found[True] == found[False]
        show("a twin pair", ("encoded apart", "encoded once"), seconds)


def warm_up(embedder: Embedder, home: Path) -> None:
    """What a process pays once: imports, and the first calls of both libraries."""
    write_tasks(home / "small" / "data", THREE, documents=40, queries=2)
    score_all(embedder, home / "small", THREE)
    for name in THREE:
        mteb.evaluate(
            StockModel(embedder),
            mteb_task(name, home / "small" / "data"),
            cache=None,
            encode_kwargs=SILENT,
            show_progress_bar=False,
        )


def score_all(embedder: Embedder, home: Path, names: Sequence[str], *, apart: bool = False) -> dict[str, float]:
    """nDCG@10 by task, everything encoded anew, into one store or one for each task."""
    found = {}
    store = Path(tempfile.mkdtemp(dir=home))
    for name in names:
        system = ours(embedder, VectorStore(store / name if apart else store))
        loaded = load_suite_task(choose("umrb", [name])[0], name, home / "data")
        found[name] = float(system.score(loaded.task, MTEB_METRICS, 1000).metrics["ndcg_at_10"].mean())
    return found


def search() -> None:
    """From vectors to scores, few and many relevant documents a query."""
    for relevant in RELEVANT:
        search_with(relevant)


def search_with(relevant: int) -> None:
    """20,000 documents, 500 queries, 256 numbers."""
    task, model, system = fixed(20_000, 500, relevant)
    ready = numbered_of(task)
    system.prepare([ready])
    found: dict[str, float] = {}

    def mteb_way() -> None:
        scored = mteb.evaluate(model, task, cache=None, encode_kwargs=SILENT, show_progress_bar=False)
        found["mteb"] = scored.task_results[0].get_score()

    def our_way() -> None:
        found["ours"] = float(system.score(ready, MTEB_METRICS, 1000).metrics["ndcg_at_10"].mean())

    mteb_way()  # its first call costs some seconds more
    seconds = interleaved_minimum([mteb_way, our_way], 2)
    assert abs(found["mteb"] - found["ours"]) < 5.1e-6, found
    show(f"search and score, 20,000 x 500, {relevant} relevant", ("mteb.evaluate", "ours"), seconds)


def warm() -> None:
    """A second run of the same, everything kept by the first; few and many relevant documents a query."""
    for relevant in RELEVANT:
        warm_with(relevant)


def warm_with(relevant: int) -> None:
    """20,000 documents, 500 queries."""
    with tempfile.TemporaryDirectory() as folder:
        task, model, system = fixed(20_000, 500, relevant, Path(folder) / "store")
        cached = CachedEmbeddingWrapper(model, Path(folder) / "mteb")
        found: dict[str, float] = {}

        def mteb_way() -> None:
            scored = mteb.evaluate(cached, task, cache=None, encode_kwargs=SILENT, show_progress_bar=False)
            found["mteb"] = scored.task_results[0].get_score()

        def our_way() -> None:
            again = ours_of(system, Path(folder) / "store")
            ready = numbered_of(task, Path(folder) / "digests")
            found["ours"] = float(again.score(ready, MTEB_METRICS, 1000).metrics["ndcg_at_10"].mean())

        mteb_way()
        our_way()
        seconds = interleaved_minimum([mteb_way, our_way], 2)
        assert abs(found["mteb"] - found["ours"]) < 5.1e-6, found
        show(f"warm rerun, 20,000 x 500, {relevant} relevant", ("CachedEmbeddingWrapper", "ours"), seconds)


def memory() -> None:
    """Peak memory by the size of the corpus."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for count in (100_000, 1_000_000):
            write_corpus(Path(folder) / f"corpus-{count}", count)
            command = [sys.executable, __file__, "--peak", str(count), folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout.split()[-1]))
            print(f"  {count:>9,} documents: {peaks[-1]:7.0f} MiB at the peak")
        print(f"peak memory of ten times the corpus: {peaks[1] / peaks[0]:.2f} times")


def fixed(
    documents: int, queries: int, relevant: int, store: Path | None = None
) -> tuple[AbsTaskRetrieval, AbsEncoder, DenseSystem]:
    """A task, a model that costs nothing, and a system of ours with the same vectors."""
    model = Fixed(vectors_of(documents, queries))
    return random_task(documents, queries, relevant), model, model.system(store or Path(tempfile.mkdtemp()))


def numbered_of(task: AbsTaskRetrieval, cache: Path | None = None) -> NumberedTask:
    """The same task as ours."""
    split = task.dataset["default"]["test"]
    return numbered(split["corpus"], split["queries"], split["relevant_docs"], cache)


def ours_of(system: DenseSystem, store: Path) -> DenseSystem:
    """The same system on a store that is opened anew."""
    return replace(system, store=VectorStore(store))


def spent(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def show(what: str, names: tuple[str, ...], seconds: list[float]) -> None:
    """Ours is the last."""
    print(what)
    for name, value in zip(names, seconds, strict=True):
        print(f"  {name:<24} {value:8.3f} CPU s   {value / seconds[-1]:7.1f}x", flush=True)


if __name__ == "__main__":
    main()
