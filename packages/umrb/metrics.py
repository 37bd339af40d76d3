"""Retrieval metrics on integer ids, equal to trec_eval's, for all queries at once.

Everything follows from one array: the rank at which each relevant document was found. Knows no task, no model and no
document id; ties must be broken before (see `umrb.tasks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError, did_you_mean

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

NOT_FOUND = np.iinfo(np.int64).max // 2
"""Rank of a relevant document that the search did not return; beyond every cut-off, and adding to it is safe."""

_PAIRS_PER_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Judgements:
    """The relevant (query, document) pairs of a task, sorted by query.

    Attributes:
        query: [p] query number, ascending; every query has at least one pair.
        doc: [p] document number.
        gain: [p] relevance, > 0.
    """

    query: Ints
    doc: Ints
    gain: Floats

    @property
    def relevant(self) -> Ints:
        """[q] number of relevant documents of each query."""
        return np.bincount(self.query).astype(np.int64)


def ranks_of_relevant(ranked: NDArray[np.integer], judgements: Judgements) -> Ints:
    """Where each relevant document was found.

    Args:
        ranked: [q, k] document numbers, best first; -1 where nothing was returned.
        judgements: p pairs.

    Returns:
        [p] ranks from 0, `NOT_FOUND` for what is not among the k.
    """
    ranks = np.full(len(judgements.query), NOT_FOUND, dtype=np.int64)
    for start in range(0, len(ranks), _PAIRS_PER_BLOCK):
        block = slice(start, start + _PAIRS_PER_BLOCK)
        hit = ranked[judgements.query[block]] == judgements.doc[block, None]  # [block, k]
        first = hit.argmax(axis=1)
        found = hit[np.arange(len(first)), first]
        ranks[block][found] = first[found]
    return ranks


def ndcg(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] nDCG with linear gain and log2 discount (Järvelin & Kekäläinen 2002, as trec_eval's ``ndcg_cut``)."""
    order = np.lexsort((-judgements.gain, judgements.query))
    best_ranks = _position_in_query(judgements)
    ideal = _sum_by_query(judgements, judgements.gain[order] * _discount(best_ranks, cutoff))
    return _sum_by_query(judgements, judgements.gain * _discount(ranks, cutoff)) / ideal


def hit_rate(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] 1 where any relevant document is in the first `cutoff` (what UniIR and CLIP papers call Recall@k)."""
    return (_best_rank(ranks, judgements) < cutoff).astype(np.float64)


def recall(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] share of the relevant documents that are in the first `cutoff`."""
    return _sum_by_query(judgements, (ranks < cutoff).astype(np.float64)) / judgements.relevant


def mrr(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] 1 / rank (from 1) of the first relevant document, 0 beyond `cutoff`."""
    best = _best_rank(ranks, judgements)
    return np.where(best < cutoff, 1.0 / (best + 1.0), 0.0)


def average_precision(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] mean over all relevant documents of the precision at their rank, 0 beyond `cutoff` (``map_cut``)."""
    ascending = ranks[np.lexsort((ranks, judgements.query))]
    precision = (_position_in_query(judgements) + 1.0) / (ascending + 1.0)
    return _sum_by_query(judgements, np.where(ascending < cutoff, precision, 0.0)) / judgements.relevant


Metric: TypeAlias = Callable[[Ints, Judgements, int], Floats]

METRICS: dict[str, Metric] = {
    "hit_rate": hit_rate,
    "map": average_precision,
    "mrr": mrr,
    "ndcg": ndcg,
    "recall": recall,
}


def parse_metric(name: str) -> tuple[str, int]:
    """``"ndcg_at_10"`` -> ``("ndcg", 10)``.

    Raises:
        FoundryError: The metric is not known, or its cut-off is not a positive number.
    """
    match = re.fullmatch(r"([a-z_]+)_at_([1-9]\d*)", name)
    if match is None or match[1] not in METRICS:
        near = did_you_mean(name.partition("_at_")[0], METRICS)
        raise FoundryError(
            f"Unknown metric '{name}'.{near}", hint=f"Use one of {', '.join(METRICS)} with a cut-off, e.g. ndcg_at_10."
        )
    return match[1], int(match[2])


def per_query(ranked: NDArray[np.integer], judgements: Judgements, names: Sequence[str]) -> dict[str, Floats]:
    """Every metric of `names` for every query: name -> [q] values in 0..1.

    Raises:
        FoundryError: See `parse_metric`.
    """
    ranks = ranks_of_relevant(ranked, judgements)
    parsed = {name: parse_metric(name) for name in names}
    return {name: METRICS[kind](ranks, judgements, cutoff) for name, (kind, cutoff) in parsed.items()}


def first_relevant_rank(ranked: NDArray[np.integer], judgements: Judgements) -> Ints:
    """[q] rank from 0 of the best-placed relevant document; `NOT_FOUND` if none was returned."""
    return _best_rank(ranks_of_relevant(ranked, judgements), judgements)


def _best_rank(ranks: Ints, judgements: Judgements) -> Ints:
    best: Ints = np.minimum.reduceat(ranks, _starts(judgements))
    return best


def _starts(judgements: Judgements) -> Ints:
    """[q] index of the first pair of each query."""
    return np.concatenate([[0], np.cumsum(judgements.relevant)[:-1]]).astype(np.int64)


def _position_in_query(judgements: Judgements) -> Ints:
    """[p] 0, 1, 2, ... within the pairs of each query."""
    positions: Ints = np.arange(len(judgements.query)) - _starts(judgements)[judgements.query]
    return positions


def _sum_by_query(judgements: Judgements, values: Floats) -> Floats:
    return np.bincount(judgements.query, weights=values).astype(np.float64, copy=False)


def _discount(ranks: Ints, cutoff: int) -> Floats:
    """[p] 1 / log2(rank + 2), 0 from the cut-off on."""
    return np.where(ranks < cutoff, 1.0 / np.log2(ranks + 2.0), 0.0)
