from __future__ import annotations

import math
import time

import numpy as np
import pytest
import pytrec_eval
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
from numbered import number_task

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard
from gme_embedder.vectors.exact import search
from umrb import metrics
from umrb.metrics import (
    METRICS,
    NOT_FOUND,
    UNREACHABLE,
    Judgements,
    parse_metric,
    per_query,
    rank_relevant,
)

# trec_eval's definitions written out plainly, one query at a time, on string ids.


def order(scores: dict[str, float]) -> list[str]:
    """Score descending; ties by document id, descending, as trec_eval has it."""
    return sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)


def ndcg(ranked: list[str], gains: dict[str, int], k: int) -> float:
    dcg = sum(gains.get(doc, 0) / math.log2(i + 2) for i, doc in enumerate(ranked[:k]))
    ideal = sum(gain / math.log2(i + 2) for i, gain in enumerate(sorted(gains.values(), reverse=True)[:k]))
    return dcg / ideal


def hit_rate(ranked: list[str], gains: dict[str, int], k: int) -> float:
    return float(any(doc in gains for doc in ranked[:k]))


def recall(ranked: list[str], gains: dict[str, int], k: int) -> float:
    return sum(doc in gains for doc in ranked[:k]) / len(gains)


def mrr(ranked: list[str], gains: dict[str, int], k: int) -> float:
    return next((1 / (i + 1) for i, doc in enumerate(ranked[:k]) if doc in gains), 0.0)


def precision(ranked: list[str], gains: dict[str, int], k: int) -> float:
    return sum(doc in gains for doc in ranked[:k]) / k


def average_precision(ranked: list[str], gains: dict[str, int], k: int) -> float:
    hits, total = 0, 0.0
    for i, doc in enumerate(ranked[:k]):
        if doc in gains:
            hits += 1
            total += hits / (i + 1)
    return total / len(gains)


REFERENCE = {
    "ndcg": ndcg, "hit_rate": hit_rate, "recall": recall, "precision": precision, "mrr": mrr, "map": average_precision,
}  # fmt: skip

NAMES = [f"{kind}_at_{k}" for kind in REFERENCE for k in (1, 3, 10, 50)]


def world(seed: int, queries: int = 40, docs: int = 60) -> tuple[RetrievalTask, np.ndarray, np.ndarray]:
    """A task with graded and multiple judgements, and small integer vectors, so that scores tie often."""
    rng = np.random.default_rng(seed)
    # Ids whose string order is not their number order: the tie rule is about strings.
    doc_ids = [f"d{i}" for i in rng.permutation(docs)]
    query_ids = [f"q{i}" for i in range(queries)]
    qrels = {
        q: {str(d): int(rng.integers(1, 4)) for d in rng.choice(doc_ids, rng.integers(1, 12), replace=False)}
        for q in query_ids
    }
    card = TaskCard(
        name="t", task_type="T->T", metric="ndcg_at_10", instruction=None, split="test", subset="unseen",
        description="-", relevance="-", licences=("CC0",), queries=queries, pool=docs,
    )  # fmt: skip
    task = RetrievalTask(
        card,
        tuple(Document(d, Item(d), d, "CC0") for d in doc_ids),
        tuple(Query(q, Item(q), q, "all", "CC0") for q in query_ids),
        qrels,
    )
    vectors = rng.integers(-1, 2, (queries + docs, 4)).astype(np.float32)
    return task, vectors[:queries], vectors[queries:]


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_trec_eval_definitions_with_ties(seed: int) -> None:
    task, query_vectors, doc_vectors = world(seed)
    numbered = number_task(task)
    query_of = {q.id: query_vectors[i] for i, q in enumerate(task.queries)}
    doc_of = {d.id: doc_vectors[i] for i, d in enumerate(task.corpus)}
    depth = 50
    _, rows = search(
        np.stack([query_of[q.id] for q in numbered.queries]), np.stack([doc_of[d.id] for d in numbered.docs]), depth
    )
    ours = per_query(rows, numbered.judgements, NAMES)
    for row, query in enumerate(numbered.queries):
        ranked = order({d: float(query_of[query.id] @ v) for d, v in doc_of.items()})[:depth]
        for name in NAMES:
            kind, _, k = name.partition("_at_")
            expected = REFERENCE[kind](ranked, task.qrels[query.id], int(k))
            assert ours[name][row] == pytest.approx(expected, abs=1e-12), (name, query.id)


def random_run(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray, Judgements, dict, dict]:
    """A run as arrays and as the dicts of trec_eval; scores of few levels tie, some queries have nothing relevant."""
    rng = np.random.default_rng(seed)
    queries, pool, depth, cutoffs = 30, 300, 100, 40
    ranked = np.stack([rng.permutation(pool)[:depth] for _ in range(queries)])
    scores = -np.sort(-rng.integers(0, levels, (queries, depth)).astype(np.float32) / levels, axis=1)
    # Number n is the n-th id from the end.
    ids = sorted((f"doc{number}" for number in rng.permutation(pool)), reverse=True)
    gains = {q: {int(d): int(rng.integers(0, 4)) for d in rng.permutation(pool)[:cutoffs]} for q in range(queries)}
    gains[3] = dict.fromkeys(gains[3], 0)
    gains[4] |= {UNREACHABLE: 2}
    pairs = sorted((q, d, gain) for q, judged in gains.items() for d, gain in judged.items() if gain > 0)
    judgements = Judgements(*(np.array(column) for column in zip(*pairs, strict=True)), queries)
    qrels = {f"q{q}": {ids[d] if d >= 0 else "nowhere": gain for d, gain in gains[q].items()} for q in gains}
    run = {f"q{q}": {ids[d]: float(s) for d, s in zip(ranked[q], scores[q], strict=True)} for q in range(queries)}
    return ranked, scores, judgements, run, qrels


@pytest.mark.parametrize("levels", [3, 20, 10_000])
def test_equal_to_pytrec_eval_and_to_mteb_on_runs_with_ties(levels: int) -> None:
    ranked, scores, judgements, run, qrels = random_run(levels, levels)
    cutoffs = [1, 3, 5, 10, 20, 100]
    names = [f"{kind}_at_{k}" for kind in METRICS for k in cutoffs]
    ours = per_query(ranked, judgements, names, scores)

    measures = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
    trec_names = {f"{theirs}.{','.join(map(str, cutoffs))}" for theirs in measures.values()}
    evaluated = pytrec_eval.RelevanceEvaluator(qrels, trec_names).evaluate(run)
    for kind, theirs in measures.items():
        for k in cutoffs:
            expected = [evaluated[f"q{q}"][f"{theirs}_{k}"] for q in range(judgements.queries)]
            np.testing.assert_allclose(ours[f"{kind}_at_{k}"], expected, atol=1e-6, err_msg=f"{kind}@{k}")

    by_mteb = calculate_retrieval_scores(run, qrels, cutoffs)
    for kind, values in (("ndcg", by_mteb.ndcg), ("map", by_mteb.map), ("hit_rate", by_mteb.hit_rate)):
        for label, value in values.items():
            assert value == pytest.approx(round(ours[f"{kind}_at_{label.split('@')[1]}"].mean(), 5), abs=1e-6)
    for label, value in by_mteb.mrr.items():
        assert value == pytest.approx(ours[f"mrr_at_{label.split('@')[1]}"].mean(), abs=1e-6)
    if levels == 3:
        assert not np.array_equal(ours["ndcg_at_10"], per_query(ranked, judgements, ["ndcg_at_10"])["ndcg_at_10"])


@pytest.mark.parametrize("room", [10, 2000, 10**6])
def test_places_are_the_same_by_comparing_and_by_a_table(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one is for few relevant documents a query, the other for many; a table may have room for less than one."""
    ranked, scores, many, *_ = random_run(0, 20)
    ranked[5, 3:], ranked[6] = -1, -1
    selected = [many.doc.tolist().index(UNREACHABLE), *range(0, len(many.doc), 7)]
    few = Judgements(*(column[np.unique(selected)] for column in (many.query, many.doc, many.gain)), many.queries)
    monkeypatch.setattr(metrics, "_TABLE_CELLS", room)
    for judgements in (few, many):
        for ties in (None, scores):
            ranks = []
            for threshold in (0, 10**6):
                monkeypatch.setattr(metrics, "_LOOKUP_FROM", threshold)
                ranks.append(rank_relevant(ranked, judgements, ties).ranks)
            np.testing.assert_array_equal(*ranks)
            assert 0 < (ranks[0] < NOT_FOUND).sum() < len(ranks[0])


def test_an_empty_result_scores_zero_and_counts() -> None:
    judgements = Judgements(np.array([0, 1]), np.array([3, 3]), np.ones(2), 2)
    ranked = np.array([[3, 1, 2], [-1, -1, -1]])
    hits = rank_relevant(ranked, judgements)
    assert hits.ranks.tolist() == hits.first.tolist() == [0, NOT_FOUND]
    for name, values in per_query(ranked, judgements, NAMES).items():
        kind, _, k = name.partition("_at_")
        assert values.tolist() == [1 / int(k) if kind == "precision" else 1.0, 0.0], name


def test_a_cutoff_beyond_the_depth_finds_nothing_more() -> None:
    judgements = Judgements(np.array([0]), np.array([9]), np.ones(1), 1)
    assert per_query(np.array([[1, 2]]), judgements, ["hit_rate_at_100"])["hit_rate_at_100"].tolist() == [0.0]


@pytest.mark.parametrize("name", ["ndgc_at_10", "ndcg", "ndcg_at_0", "hit_rate@5"])
def test_unknown_metrics_are_refused(name: str) -> None:
    with pytest.raises(FoundryError, match="Unknown metric"):
        parse_metric(name)


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(FoundryError, match="Did you mean 'ndcg'"):
        parse_metric("ndgc_at_10")


def test_ten_thousand_queries_of_a_thousand_hits_take_a_moment() -> None:
    rng = np.random.default_rng(0)
    ranked = np.argsort(rng.random((100, 1000)), axis=1)[rng.integers(0, 100, 10_000)]
    judgements = Judgements(np.arange(10_000), rng.integers(0, 5000, 10_000), np.ones(10_000), 10_000)
    started = time.process_time()
    per_query(ranked, judgements, ["ndcg_at_10", "map_at_1000", "mrr_at_10", "hit_rate_at_5", "recall_at_100"])
    assert time.process_time() - started < 1.0  # peers need 3 to 10 s; measured 0.05 to 0.1
