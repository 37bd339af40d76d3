"""Exact nearest neighbours by inner product.

FAISS scans; what it leaves open, the order among equal scores, is settled here: the lower row comes first.
Knows vectors only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError

_MARGIN = 32

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


def search(queries: NDArray[np.float32], corpus: NDArray[np.float32], k: int) -> tuple[Scores, Rows]:
    """The `k` rows of `corpus` with the largest inner products, for each query.

    Args:
        queries: [q, d].
        corpus: [n, d].
        k: At least 1; with fewer rows than `k`, all n are returned.

    Returns:
        Scores float32 and rows int64, both [q, min(k, n)], by falling score, ties by rising row.

    Raises:
        FoundryError: The shapes do not fit, or `k` is below 1.
    """
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1] or k < 1:
        raise FoundryError(f"Can't search: queries {queries.shape}, corpus {corpus.shape}, k {k}.")
    found = min(k, len(corpus))
    if not len(queries) or not found:
        return np.zeros((len(queries), found), np.float32), np.zeros((len(queries), found), np.int64)
    index = faiss.IndexFlatIP(corpus.shape[1])
    index.add(np.ascontiguousarray(corpus, dtype=np.float32))
    return _search(index, np.ascontiguousarray(queries, dtype=np.float32), found, found + _MARGIN)


def search_shards(queries: NDArray[np.float32], shards: Iterable[NDArray[Any]], k: int) -> tuple[Scores, Rows]:
    """As `search` over all shards laid end to end, with one of them in memory at a time.

    Args:
        queries: [q, d].
        shards: [n_i, d] each, of any float type; memory-mapped ones are read once.
        k: At least 1.

    Returns:
        As `search`; rows count on from shard to shard.
    """
    scores, rows = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    offset = 0
    for shard in shards:
        found, places = search(queries, np.asarray(shard, dtype=np.float32), k)
        scores = np.concatenate([scores, found], axis=1)
        rows = np.concatenate([rows, places + offset], axis=1)
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        offset += len(shard)
    return scores, rows


def _search(index: faiss.IndexFlatIP, queries: NDArray[np.float32], k: int, wide: int) -> tuple[Scores, Rows]:
    """Ask for more than `k`; where a tie runs across even the wider border, ask again for twice as many."""
    wide = min(wide, index.ntotal)
    scores, rows = index.search(queries, wide)
    order = np.lexsort((rows, -scores), axis=1)
    scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    if wide < index.ntotal:
        open_ended = np.flatnonzero(scores[:, k - 1] == scores[:, -1])
        if len(open_ended):
            more_scores, more_rows = _search(index, queries[open_ended], k, 2 * wide)
            scores[open_ended, :k], rows[open_ended, :k] = more_scores, more_rows
    return scores[:, :k], rows[:, :k]
