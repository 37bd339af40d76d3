"""Retrieval metrics on integer ids, equal to trec_eval's, for all queries at once.

Everything follows from one array: the rank at which each relevant document was found. Nothing is sorted: of a ranking
by falling score the place of a document is known up to its ties, and those are counted. trec_eval has the greater
document id first among equal scores, so documents are numbered by id, descending, and the lower number comes first.
Knows no task, no model and no document id.
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

UNREACHABLE = -2
"""Number of a relevant document that is not in the pool: no search can return it, and trec_eval still counts it."""

_PAIRS_PER_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Judgements:
    """The relevant (query, document) pairs of a task, sorted by query.

    Attributes:
        query: [p] query number, ascending.
        doc: [p] document number, or `UNREACHABLE`.
        gain: [p] relevance, > 0.
        queries: q, the number of queries; one without a pair scores 0 in everything.
    """

    query: Ints
    doc: Ints
    gain: Floats
    queries: int

    @property
    def relevant(self) -> Ints:
        """[q] number of relevant documents of each query."""
        return np.bincount(self.query, minlength=self.queries).astype(np.int64)


def ranks_of_relevant(
    ranked: NDArray[np.integer], judgements: Judgements, scores: NDArray[np.floating] | None = None
) -> Ints:
    """Where each relevant document was found.

    Args:
        ranked: [q, k] document numbers, best first; -1 where nothing was returned.
        judgements: p pairs.
        scores: [q, k] falling scores of `ranked`, if equal ones may be in any order; without them the order stands.

    Returns:
        [p] ranks from 0, `NOT_FOUND` for what is not among the k.
    """
    ranks = np.full(len(judgements.query), NOT_FOUND, dtype=np.int64)
    for start in range(0, len(ranks), _PAIRS_PER_BLOCK):
        query, doc = (part[start : start + _PAIRS_PER_BLOCK] for part in (judgements.query, judgements.doc))
        hit = ranked[query] == doc[:, None]  # [block, k]
        place = hit.argmax(axis=1)
        found = np.flatnonzero(hit[np.arange(len(place)), place])
        query, doc, place = query[found], doc[found], place[found]
        ranks[start + found] = place if scores is None else _after_ties(ranked, scores, query, doc, place)
    return ranks


def _after_ties(ranked: NDArray[np.integer], scores: NDArray[np.floating], query: Ints, doc: Ints, place: Ints) -> Ints:
    """Ranks of documents found at `place`, where equal scores fall by rising number."""
    own, last = scores[query, place], scores.shape[1] - 1
    tied = (place > 0) & (scores[query, place - 1] == own)
    tied |= (place < last) & (scores[query, np.minimum(place + 1, last)] == own)
    at = np.flatnonzero(tied)
    level = scores[query[at]] == own[at, None]  # [tied, k]
    earlier = level & (ranked[query[at]] < doc[at, None]) & (ranked[query[at]] >= 0)
    place = place.copy()
    place[at] = level.argmax(axis=1) + np.count_nonzero(earlier, axis=1)
    return place


def ndcg(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] nDCG with linear gain and log2 discount (Järvelin & Kekäläinen 2002, as trec_eval's ``ndcg_cut``)."""
    order = np.lexsort((-judgements.gain, judgements.query))
    best_ranks = _position_in_query(judgements)
    ideal = _sum_by_query(judgements, judgements.gain[order] * _discount(best_ranks, cutoff))
    return _ratio(_sum_by_query(judgements, judgements.gain * _discount(ranks, cutoff)), ideal)


def hit_rate(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] 1 where any relevant document is in the first `cutoff` (what UniIR and CLIP papers call Recall@k)."""
    return (_best_rank(ranks, judgements) < cutoff).astype(np.float64)


def recall(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] share of the relevant documents that are in the first `cutoff`."""
    return _ratio(_sum_by_query(judgements, (ranks < cutoff).astype(np.float64)), judgements.relevant)


def precision(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] share of the first `cutoff` places that hold a relevant document."""
    return _sum_by_query(judgements, (ranks < cutoff).astype(np.float64)) / cutoff


def mrr(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] 1 / rank (from 1) of the first relevant document, 0 beyond `cutoff`."""
    best = _best_rank(ranks, judgements)
    return np.where(best < cutoff, 1.0 / (best + 1.0), 0.0)


def average_precision(ranks: Ints, judgements: Judgements, cutoff: int) -> Floats:
    """[q] mean over all relevant documents of the precision at their rank, 0 beyond `cutoff` (``map_cut``)."""
    ascending = ranks[np.lexsort((ranks, judgements.query))]
    at_rank = (_position_in_query(judgements) + 1.0) / (ascending + 1.0)
    return _ratio(_sum_by_query(judgements, np.where(ascending < cutoff, at_rank, 0.0)), judgements.relevant)


Metric: TypeAlias = Callable[[Ints, Judgements, int], Floats]

METRICS: dict[str, Metric] = {
    "hit_rate": hit_rate,
    "map": average_precision,
    "mrr": mrr,
    "ndcg": ndcg,
    "precision": precision,
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


def per_query(
    ranked: NDArray[np.integer],
    judgements: Judgements,
    names: Sequence[str],
    scores: NDArray[np.floating] | None = None,
) -> dict[str, Floats]:
    """Every metric of `names` for every query: name -> [q] values in 0..1. Arguments as for `ranks_of_relevant`.

    Raises:
        FoundryError: See `parse_metric`.
    """
    ranks = ranks_of_relevant(ranked, judgements, scores)
    parsed = {name: parse_metric(name) for name in names}
    return {name: METRICS[kind](ranks, judgements, cutoff) for name, (kind, cutoff) in parsed.items()}


def first_relevant_rank(ranked: NDArray[np.integer], judgements: Judgements) -> Ints:
    """[q] rank from 0 of the best-placed relevant document; `NOT_FOUND` if none was returned."""
    return _best_rank(ranks_of_relevant(ranked, judgements), judgements)


def _best_rank(ranks: Ints, judgements: Judgements) -> Ints:
    best = np.full(judgements.queries, NOT_FOUND, np.int64)
    np.minimum.at(best, judgements.query, ranks)
    return best


def _starts(judgements: Judgements) -> Ints:
    """[q] index of the first pair of each query."""
    return np.concatenate([[0], np.cumsum(judgements.relevant)[:-1]]).astype(np.int64)


def _position_in_query(judgements: Judgements) -> Ints:
    """[p] 0, 1, 2, ... within the pairs of each query."""
    positions: Ints = np.arange(len(judgements.query)) - _starts(judgements)[judgements.query]
    return positions


def _sum_by_query(judgements: Judgements, values: Floats) -> Floats:
    return np.bincount(judgements.query, weights=values, minlength=judgements.queries).astype(np.float64, copy=False)


def _ratio(values: Floats, whole: Floats | Ints) -> Floats:
    """`values` / `whole`, 0 for queries that have nothing relevant."""
    return np.divide(values, whole, out=np.zeros_like(values), where=whole > 0)


def _discount(ranks: Ints, cutoff: int) -> Floats:
    """[p] 1 / log2(rank + 2), 0 from the cut-off on."""
    return np.where(ranks < cutoff, 1.0 / np.log2(ranks + 2.0), 0.0)
