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
from functools import cached_property
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
_MANY = 8
"""Relevant documents a query, from which on looking places up is faster than comparing; measured."""
_TABLE = 2**18
"""Numbers of the table for it, one megabyte: what is larger leaves the processor's caches."""


@dataclass(frozen=True)
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

    @cached_property
    def relevant(self) -> Ints:
        """[q] number of relevant documents of each query."""
        return np.bincount(self.query, minlength=self.queries).astype(np.int64)

    @cached_property
    def position(self) -> Ints:
        """[p] 0, 1, 2, ... within the pairs of each query."""
        starts = np.concatenate([[0], np.cumsum(self.relevant)[:-1]]).astype(np.int64)
        positions: Ints = np.arange(len(self.query)) - starts[self.query]
        return positions

    @cached_property
    def falling(self) -> Floats:
        """[p] the gains of each query, best first."""
        return self.gain[np.lexsort((-self.gain, self.query))]

    def sums(self, values: NDArray[np.floating | np.bool_]) -> Floats:
        """[q] sum over the pairs of each query of `values` [p]."""
        return np.bincount(self.query, weights=values, minlength=self.queries).astype(np.float64, copy=False)


@dataclass(frozen=True)
class RelevantRanks:
    """Where the relevant documents were found. What several metrics need of it is worked out once.

    Attributes:
        judgements: p pairs.
        ranks: [p] from 0, `NOT_FOUND` for what was not returned.
    """

    judgements: Judgements
    ranks: Ints

    @cached_property
    def best(self) -> Ints:
        """[q] rank of the best-placed relevant document."""
        best = np.full(self.judgements.queries, NOT_FOUND, np.int64)
        np.minimum.at(best, self.judgements.query, self.ranks)
        return best

    @cached_property
    def gains(self) -> tuple[Floats, Floats]:
        """[p] gains discounted by the ranks at hand; and those of the best order, which `Judgements.position` ranks."""
        pairs = self.judgements
        return pairs.gain / np.log2(self.ranks + 2.0), pairs.falling / np.log2(pairs.position + 2.0)

    @cached_property
    def precisions(self) -> tuple[Ints, Floats]:
        """[p] ranks of each query, rising; and the precision at each."""
        rising = self.ranks[np.lexsort((self.ranks, self.judgements.query))]
        return rising, (self.judgements.position + 1.0) / (rising + 1.0)

    def within(self, cutoff: int) -> Floats:
        """[q] number of relevant documents in the first `cutoff`."""
        return self.judgements.sums(self.ranks < cutoff)


def rank_relevant(ranked: Ints, judgements: Judgements, scores: NDArray[np.floating] | None = None) -> RelevantRanks:
    """Find the relevant documents in rankings.

    Args:
        ranked: [q, k] document numbers, best first, none twice; -1 where nothing was returned.
        judgements: p pairs.
        scores: [q, k] falling scores of `ranked`, if equal ones may be in any order; without them the order stands.
    """
    many = len(judgements.query) > _MANY * len(ranked)
    places = _looked_up(ranked, judgements) if many else _compared(ranked, judgements)
    if scores is not None:
        returned = np.flatnonzero(places >= 0)
        for start in range(0, len(returned), _PAIRS_PER_BLOCK):
            block = returned[start : start + _PAIRS_PER_BLOCK]
            pairs = judgements.query[block], judgements.doc[block]
            places[block] = _after_ties(ranked, scores, *pairs, places[block])
    return RelevantRanks(judgements, np.where(places >= 0, places, NOT_FOUND))


def _compared(ranked: Ints, judgements: Judgements) -> Ints:
    """[p] place of each relevant document, -1 if it was not returned: each is compared with its whole ranking."""
    places = np.full(len(judgements.query), -1, np.int64)
    for start in range(0, len(places), _PAIRS_PER_BLOCK):
        block = slice(start, start + _PAIRS_PER_BLOCK)
        hit = ranked[judgements.query[block]] == judgements.doc[block, None]  # [block, k]
        place = hit.argmax(axis=1)
        places[block] = np.where(hit[np.arange(len(place)), place], place, -1)
    return places


def _looked_up(ranked: Ints, judgements: Judgements) -> Ints:
    """As `_compared`, by a table of the place of every document, for as many queries at a time as it has room for."""
    places = np.full(len(judgements.query), -1, np.int64)
    # One column more for -1, nothing returned, and one for `UNREACHABLE`: as indices both count from the end.
    width = int(max(ranked.max(initial=-1), judgements.doc.max(initial=-1))) + 3
    lines = max(1, _TABLE // width)
    table = np.full(lines * width, -1, np.int32)
    for start in range(0, len(ranked), lines):
        part = ranked[start : start + lines]
        cells = part % width + np.arange(len(part))[:, None] * width
        table[cells] = np.arange(part.shape[1])
        table[width - 1 :: width] = -1
        pairs = slice(*np.searchsorted(judgements.query, [start, start + lines]))
        places[pairs] = table[(judgements.query[pairs] - start) * width + judgements.doc[pairs] % width]
        table[cells] = -1
    return places


def _after_ties(ranked: Ints, scores: NDArray[np.floating], query: Ints, doc: Ints, place: Ints) -> Ints:
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


def ndcg(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] nDCG with linear gain and log2 discount (Järvelin & Kekäläinen 2002, as trec_eval's ``ndcg_cut``)."""
    (gains, ideal), pairs = hits.gains, hits.judgements
    best = pairs.sums(np.where(pairs.position < cutoff, ideal, 0.0))
    return _ratio(pairs.sums(np.where(hits.ranks < cutoff, gains, 0.0)), best)


def hit_rate(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] 1 where any relevant document is in the first `cutoff` (what UniIR and CLIP papers call Recall@k)."""
    return (hits.best < cutoff).astype(np.float64)


def recall(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] share of the relevant documents that are in the first `cutoff`."""
    return _ratio(hits.within(cutoff), hits.judgements.relevant)


def precision(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] share of the first `cutoff` places that hold a relevant document."""
    return hits.within(cutoff) / cutoff


def mrr(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] 1 / rank (from 1) of the first relevant document, 0 beyond `cutoff`."""
    return np.where(hits.best < cutoff, 1.0 / (hits.best + 1.0), 0.0)


def average_precision(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] mean over all relevant documents of the precision at their rank, 0 beyond `cutoff` (``map_cut``)."""
    rising, precisions = hits.precisions
    return _ratio(hits.judgements.sums(np.where(rising < cutoff, precisions, 0.0)), hits.judgements.relevant)


Metric: TypeAlias = Callable[[RelevantRanks, int], Floats]

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
    ranked: Ints,
    judgements: Judgements,
    names: Sequence[str],
    scores: NDArray[np.floating] | None = None,
) -> dict[str, Floats]:
    """Every metric of `names` for every query: name -> [q] values in 0..1. Arguments as for `find`.

    Raises:
        FoundryError: See `parse_metric`.
    """
    hits = rank_relevant(ranked, judgements, scores)
    parsed = {name: parse_metric(name) for name in names}
    return {name: METRICS[kind](hits, cutoff) for name, (kind, cutoff) in parsed.items()}


def _ratio(values: Floats, whole: Floats | Ints) -> Floats:
    """`values` / `whole`, 0 for queries that have nothing relevant."""
    return np.divide(values, whole, out=np.zeros_like(values), where=whole > 0)
