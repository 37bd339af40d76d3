"""mteb's nAUC: how well the scores of a search tell which queries it answered well (Gisserot-Boukhlef et al. 2024).

Knows rankings and per-query values; the area itself is mteb's own function.
"""

from __future__ import annotations

import numpy as np
from mteb._evaluators.retrieval_metrics import nauc

from umrb.metrics import Floats
from umrb.systems.base import QueryScores, Ranking

_KINDS = ("ndcg", "map", "recall", "precision", "mrr")


def nauc_of(outcome: QueryScores) -> dict[str, float]:
    """Of every metric that mteb has it of, by mteb's names, such as ``nauc_ndcg_at_10_max``; NaN where all are equal.

    Args:
        outcome: Of a search; of a system without a ranking there is none.
    """
    if outcome.ranking is None:
        return {}
    confidence = _confidence(outcome.ranking)
    return {
        f"nauc_{metric}_{name}": float(nauc(values, found))
        for metric, found in outcome.metrics.items()
        if metric.partition("_at_")[0] in _KINDS
        for name, values in confidence.items()
    }


def _confidence(ranking: Ranking) -> dict[str, Floats]:
    """[q] the highest score, the standard deviation of all, and the distance of the highest two; 0 for what is not."""
    returned = ranking.rows >= 0
    scores = np.where(returned, ranking.scores, np.nan).astype(np.float64)
    scores = np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))), constant_values=np.nan)
    mean = np.nansum(scores, axis=1, keepdims=True) / np.maximum(returned.sum(axis=1, keepdims=True), 1)
    variance = np.nansum((scores - mean) ** 2, axis=1) / np.maximum(returned.sum(axis=1), 1)
    return {
        "max": np.nan_to_num(scores[:, 0]),
        "std": np.sqrt(variance),
        "diff1": np.nan_to_num(scores[:, 0] - scores[:, 1]),
    }
