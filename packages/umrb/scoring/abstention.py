"""nAUC as mteb reports it: how well retrieval scores predict which queries are answered well.

The metric is that of Gisserot-Boukhlef et al. (2024), and mteb's own function computes the area. Knows rankings and
per-query values.
"""

from __future__ import annotations

import numpy as np
from mteb._evaluators.retrieval_metrics import nauc

from umrb.metrics import Floats
from umrb.systems.base import QueryScores, Ranking

_KINDS = ("ndcg", "map", "recall", "precision", "mrr")


def nauc_of(scores: QueryScores) -> dict[str, float]:
    """Return nAUC by mteb's names, such as ``nauc_ndcg_at_10_max``, of the metrics for which mteb reports it.

    A value is NaN where all queries have the same score. A system without a ranking has no nAUC.
    """
    if scores.ranking is None:
        return {}
    confidence = _confidence(scores.ranking)
    return {
        f"nauc_{metric}_{name}": float(nauc(confidences, values))
        for metric, values in scores.metrics.items()
        if metric.partition("_at_")[0] in _KINDS
        for name, confidences in confidence.items()
    }


def _confidence(ranking: Ranking) -> dict[str, Floats]:
    """Per query [q] the highest score, the standard deviation, the difference of the highest two; 0 if undefined."""
    returned = ranking.rows >= 0
    scores = np.where(returned, ranking.scores, np.nan).astype(np.float64)
    # A pool of one document has no second score.
    scores = np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))), constant_values=np.nan)
    mean = np.nansum(scores, axis=1, keepdims=True) / np.maximum(returned.sum(axis=1, keepdims=True), 1)
    variance = np.nansum((scores - mean) ** 2, axis=1) / np.maximum(returned.sum(axis=1), 1)
    return {
        "max": np.nan_to_num(scores[:, 0]),
        "std": np.sqrt(variance),
        "diff1": np.nan_to_num(scores[:, 0] - scores[:, 1]),
    }
