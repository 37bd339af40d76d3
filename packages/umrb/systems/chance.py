"""The exact expected scores of a random ranking. Knows only the sizes of pools and judgements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gme_data.tasks import TaskCard
from umrb.data.tasks import NumberedTask
from umrb.metrics import Floats, Judgements, RelevantRanks, ndcg, parse_metric
from umrb.systems.base import QueryScores


class ChanceSystem:
    """Ranks the pool at random, with every order equally likely; its scores are exact expectations."""

    name = "random"

    def applies_to(self, card: TaskCard) -> bool:
        """Return True: chance needs no modality."""
        del card
        return True

    def missing(self, tasks: Sequence[NumberedTask]) -> int:
        """Return 0, since nothing is encoded."""
        del tasks
        return 0

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Do nothing, since no work is shared between processes."""
        del tasks

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        """Return expectations, without a ranking; see `System`."""
        del depth
        return QueryScores({name: expected(name, task.judgements, len(task.docs)) for name in metrics}, None)


def expected(metric: str, judgements: Judgements, pool: int) -> Floats:
    """Return the expectation [q] of a metric over all orders of a pool of `pool` documents.

    Raises:
        FoundryError: There is no such metric.
    """
    kind, nominal_cutoff = parse_metric(metric)
    cutoff = min(nominal_cutoff, pool)
    if kind == "hit_rate":
        return _hit_rate(judgements, pool, cutoff)
    if kind == "recall":
        return np.where(judgements.relevant > 0, cutoff / pool, 0.0)
    if kind == "precision":
        # trec_eval divides by the nominal cutoff, also where the pool is smaller.
        return np.asarray(judgements.relevant * (cutoff / pool / nominal_cutoff))
    if kind == "ndcg":
        return _ndcg(judgements, pool, cutoff)
    if kind == "mrr":
        return _mrr(judgements, pool, cutoff)
    return _average_precision(judgements, pool, cutoff)


def _hit_rate(judgements: Judgements, pool: int, cutoff: int) -> Floats:
    """One minus the chance that `cutoff` draws without replacement all miss: 1 - prod (n - r - i) / (n - i)."""
    draws = np.arange(cutoff)[:, None]  # [k, 1]
    # With more draws than irrelevant documents a miss is impossible.
    miss = np.maximum(pool - judgements.relevant - draws, 0) / (pool - draws)  # [k, q]
    return np.asarray(1.0 - miss.prod(axis=0))


def _ndcg(judgements: Judgements, pool: int, cutoff: int) -> Floats:
    """Each rank holds each document with chance 1 / n, so E[DCG] is the mean gain times the sum of the discounts."""
    discounts = (1.0 / np.log2(np.arange(cutoff) + 2.0)).sum()
    # With every relevant document at rank 0 nDCG is (sum of gains) / ideal; 0 where nothing is relevant.
    all_at_top = ndcg(RelevantRanks(judgements, np.zeros_like(judgements.query)), cutoff)
    return np.asarray(all_at_top / pool * discounts)


def _mrr(judgements: Judgements, pool: int, cutoff: int) -> Floats:
    """Sum over ranks of the reciprocal rank times the chance that the first relevant document is there."""
    at_most = np.stack([_hit_rate(judgements, pool, rank) for rank in range(cutoff + 1)])  # [k + 1, q]
    reciprocal = 1.0 / np.arange(1, cutoff + 1)
    return np.asarray(reciprocal @ np.diff(at_most, axis=0))


def _average_precision(judgements: Judgements, pool: int, cutoff: int) -> Floats:
    """Sum over ranks i of E[precision at i, if i is relevant] / r, which is 1/n * (1 + (i - 1)(r - 1)/(n - 1)) / i."""
    rank = np.arange(1, cutoff + 1)[:, None]  # [k, 1]
    others = (rank - 1) * (judgements.relevant - 1) / max(pool - 1, 1)
    return np.where(judgements.relevant > 0, ((1.0 + others) / rank).sum(axis=0) / pool, 0.0)
