"""Retrieval metrics on integer ids, equal to trec_eval's, for all queries at once.

All metrics follow from one array, the rank of each relevant document. Nothing is sorted: in a ranking by descending
score the rank of a document is known up to its ties, and those are counted. trec_eval puts the greater document id
first among equal scores, so documents are numbered in descending order of their ids, and the lower number comes first.
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
"""Rank of a relevant document that the search did not return. It is beyond every cut-off, and sums don't overflow."""

UNREACHABLE = -2
"""Number of a relevant document that is not in the pool: no search returns it, but trec_eval still counts it."""

_PAIRS_PER_BLOCK = 512
_LOOKUP_FROM = 8
"""With more relevant documents per query a table of ranks is faster than comparisons, by measurement."""
_TABLE_CELLS = 2**18
"""Cells of the table of ranks, which takes one megabyte: a larger one would leave the processor's caches."""


@dataclass(frozen=True)
class Judgements:
    """The relevant (query, document) pairs of a task, sorted by query.

    Attributes:
        query: [p] query number, ascending.
        doc: [p] document number, or `UNREACHABLE`.
        gain: [p] relevance, > 0.
        queries: q, the number of queries; a query without a pair scores 0 in every metric.
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
        """[p] number of each pair among the pairs of its query: 0, 1, 2, ..."""
        starts = np.concatenate([[0], np.cumsum(self.relevant)[:-1]]).astype(np.int64)
        positions: Ints = np.arange(len(self.query)) - starts[self.query]
        return positions

    @cached_property
    def gains_descending(self) -> Floats:
        """[p] the gains of each query, highest first."""
        return self.gain[np.lexsort((-self.gain, self.query))]

    def sums(self, values: NDArray[np.floating | np.bool_]) -> Floats:
        """Sum `values` [p] over the pairs of each query, [q]."""
        return np.bincount(self.query, weights=values, minlength=self.queries).astype(np.float64, copy=False)


@dataclass(frozen=True)
class RelevantRanks:
    """The ranks of the relevant documents. Values that several metrics need are computed once.

    Attributes:
        judgements: p pairs.
        ranks: [p] ranks from 0; `NOT_FOUND` for documents that were not returned.
    """

    judgements: Judgements
    ranks: Ints

    @cached_property
    def first(self) -> Ints:
        """[q] rank of the first relevant document."""
        first = np.full(self.judgements.queries, NOT_FOUND, np.int64)
        np.minimum.at(first, self.judgements.query, self.ranks)
        return first

    @cached_property
    def gains(self) -> tuple[Floats, Floats]:
        """[p] gains discounted by their ranks; and gains discounted by the ranks of the ideal order."""
        pairs = self.judgements
        return pairs.gain / np.log2(self.ranks + 2.0), pairs.gains_descending / np.log2(pairs.position + 2.0)

    @cached_property
    def precisions(self) -> tuple[Ints, Floats]:
        """[p] ranks of each query in ascending order; and the precision at each of them."""
        ascending = self.ranks[np.lexsort((self.ranks, self.judgements.query))]
        return ascending, (self.judgements.position + 1.0) / (ascending + 1.0)

    def within(self, cutoff: int) -> Floats:
        """Count the relevant documents of each query in the first `cutoff`, [q]."""
        return self.judgements.sums(self.ranks < cutoff)


def rank_relevant(ranked: Ints, judgements: Judgements, scores: NDArray[np.floating] | None = None) -> RelevantRanks:
    """Return the ranks of the relevant documents in rankings.

    Args:
        ranked: [q, k] document numbers, best first, no document twice; -1 where nothing was returned.
        judgements: p pairs.
        scores: [q, k] descending scores of `ranked`. With them, documents of equal scores are ranked by ascending
            number; without them, the order of `ranked` stands.
    """
    many = len(judgements.query) > _LOOKUP_FROM * len(ranked)
    ranks = _ranks_by_table(ranked, judgements) if many else _ranks_by_comparison(ranked, judgements)
    if scores is not None:
        returned = np.flatnonzero(ranks >= 0)
        for start in range(0, len(returned), _PAIRS_PER_BLOCK):
            block = returned[start : start + _PAIRS_PER_BLOCK]
            pairs = judgements.query[block], judgements.doc[block]
            ranks[block] = _break_ties(ranked, scores, *pairs, ranks[block])
    return RelevantRanks(judgements, np.where(ranks >= 0, ranks, NOT_FOUND))


def _ranks_by_comparison(ranked: Ints, judgements: Judgements) -> Ints:
    """[p] rank of each relevant document, -1 if it was not returned: each is compared with its whole ranking."""
    ranks = np.full(len(judgements.query), -1, np.int64)
    for start in range(0, len(ranks), _PAIRS_PER_BLOCK):
        block = slice(start, start + _PAIRS_PER_BLOCK)
        hit = ranked[judgements.query[block]] == judgements.doc[block, None]  # [block, k]
        rank = hit.argmax(axis=1)
        ranks[block] = np.where(hit[np.arange(len(rank)), rank], rank, -1)
    return ranks


def _ranks_by_table(ranked: Ints, judgements: Judgements) -> Ints:
    """As `_ranks_by_comparison`, by a table of the rank of every document, for a block of queries at a time."""
    ranks = np.full(len(judgements.query), -1, np.int64)
    # One column more for -1, nothing returned, and one for `UNREACHABLE`: as indices both count from the end.
    width = int(max(ranked.max(initial=-1), judgements.doc.max(initial=-1))) + 3
    lines = max(1, _TABLE_CELLS // width)
    table = np.full(lines * width, -1, np.int32)
    for start in range(0, len(ranked), lines):
        block = ranked[start : start + lines]
        cells = block % width + np.arange(len(block))[:, None] * width
        table[cells] = np.arange(block.shape[1])
        # Ranks where nothing was returned were written to the column of -1, which must read as "not returned".
        table[width - 1 :: width] = -1
        pairs = slice(*np.searchsorted(judgements.query, [start, start + lines]))
        ranks[pairs] = table[(judgements.query[pairs] - start) * width + judgements.doc[pairs] % width]
        # Only the cells in use are reset: the table is much larger than a block.
        table[cells] = -1
    return ranks


def _break_ties(ranked: Ints, scores: NDArray[np.floating], query: Ints, doc: Ints, rank: Ints) -> Ints:
    """Ranks of documents that were returned at `rank`, where equal scores are ordered by ascending number."""
    score, last = scores[query, rank], scores.shape[1] - 1
    tied = (rank > 0) & (scores[query, rank - 1] == score)
    tied |= (rank < last) & (scores[query, np.minimum(rank + 1, last)] == score)
    at = np.flatnonzero(tied)
    equal = scores[query[at]] == score[at, None]  # [tied, k]
    # A tied document's rank is that of the first of its ties, plus the ties with a lower number.
    earlier = equal & (ranked[query[at]] < doc[at, None]) & (ranked[query[at]] >= 0)
    rank = rank.copy()
    rank[at] = equal.argmax(axis=1) + np.count_nonzero(earlier, axis=1)
    return rank


def ndcg(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] nDCG with linear gain and log2 discount (Järvelin & Kekäläinen 2002, as trec_eval's ``ndcg_cut``)."""
    (gains, ideal), pairs = hits.gains, hits.judgements
    ideal_dcg = pairs.sums(np.where(pairs.position < cutoff, ideal, 0.0))
    return _ratio(pairs.sums(np.where(hits.ranks < cutoff, gains, 0.0)), ideal_dcg)


def hit_rate(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] 1 where any relevant document is in the first `cutoff`, which papers such as UniIR and CLIP call Recall@k."""
    return (hits.first < cutoff).astype(np.float64)


def recall(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] share of the relevant documents that are in the first `cutoff`."""
    return _ratio(hits.within(cutoff), hits.judgements.relevant)


def precision(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] share of the first `cutoff` ranks that hold a relevant document."""
    return hits.within(cutoff) / cutoff


def mrr(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] 1 / rank (from 1) of the first relevant document, 0 beyond `cutoff`."""
    return np.where(hits.first < cutoff, 1.0 / (hits.first + 1.0), 0.0)


def average_precision(hits: RelevantRanks, cutoff: int) -> Floats:
    """[q] mean over all relevant documents of the precision at their rank, 0 beyond `cutoff` (``map_cut``)."""
    ranks, precisions = hits.precisions
    return _ratio(hits.judgements.sums(np.where(ranks < cutoff, precisions, 0.0)), hits.judgements.relevant)


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
    """Split a metric's name into kind and cut-off: ``"ndcg_at_10"`` -> ``("ndcg", 10)``.

    Raises:
        FoundryError: There is no such metric, or its cut-off is not a positive number.
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
    """Return the values [q] in 0..1 of every metric of `names`, by name. For the arguments see `rank_relevant`.

    Raises:
        FoundryError: See `parse_metric`.
    """
    hits = rank_relevant(ranked, judgements, scores)
    parsed = {name: parse_metric(name) for name in names}
    return {name: METRICS[kind](hits, cutoff) for name, (kind, cutoff) in parsed.items()}


def _ratio(values: Floats, totals: Floats | Ints) -> Floats:
    """`values` / `totals`, and 0 for queries without a relevant document."""
    return np.divide(values, totals, out=np.zeros_like(values), where=totals > 0)
