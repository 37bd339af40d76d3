"""nAUC against mteb's own of the same run, with ties, short rankings and queries that found nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, make_score_dict

from umrb.metrics import Judgements, per_query
from umrb.scoring.abstention import nauc_of
from umrb.scoring.result_files import CUTOFFS, MTEB_METRICS
from umrb.systems.base import QueryScores, Ranking

QUERIES, DEPTH, POOL = 60, 30, 50


def test_the_same_as_mteb() -> None:
    draw = np.random.default_rng(3)
    scores = -np.sort(-draw.integers(0, 20, (QUERIES, DEPTH)).astype(np.float32), axis=1) / 8
    rows = np.stack([draw.permutation(POOL)[:DEPTH] for _ in range(QUERIES)])
    for query in range(QUERIES):  # ties fall to the lower row, as a search returns them
        rows[query] = rows[query][np.lexsort((rows[query], -scores[query]))]
    rows[:3, 1:], rows[3:6, 4:] = -1, -1
    pairs = np.unique(np.stack([np.repeat(np.arange(QUERIES), 3), draw.integers(0, POOL, QUERIES * 3)], 1), axis=0)
    judgements = Judgements(pairs[:, 0], pairs[:, 1], np.ones(len(pairs)), QUERIES)
    ours = nauc_of(QueryScores(per_query(rows, judgements, MTEB_METRICS), Ranking(rows, scores)))

    ids = [f"d{POOL - row:03d}" for row in range(POOL)]
    run = {
        f"q{query}": {ids[row]: float(score) for row, score in zip(rows[query], scores[query], strict=True) if row >= 0}
        for query in range(QUERIES)
    }
    qrels: dict[str, dict[str, int]] = {}
    for query, row in pairs.tolist():
        qrels.setdefault(f"q{query}", {})[ids[row]] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_mteb = calculate_retrieval_scores(run, qrels, list(CUTOFFS))
    named = make_score_dict(
        ndcg=by_mteb.ndcg, _map=by_mteb.map, recall=by_mteb.recall, precision=by_mteb.precision, mrr=by_mteb.mrr,
        naucs=by_mteb.naucs, naucs_mrr=by_mteb.naucs_mrr, hit_rate=by_mteb.hit_rate, task_scores={},
    )  # fmt: skip
    theirs = {name: value for name, value in named.items() if name.startswith("nauc_")}
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_a_system_without_a_ranking_has_none() -> None:
    assert nauc_of(QueryScores({"ndcg_at_10": np.ones(3)}, None)) == {}
