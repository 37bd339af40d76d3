"""ApproximateIndex nearest neighbours: FAISS indices over inner products, and their recall against exact search.

An index is built shard by shard and is in memory as a whole. Knows vectors only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_embedder.vectors.exact import Floats, Rows, Scores, require_one_dtype, search_shards

_log = logging.getLogger(__name__)

FaissIndex: TypeAlias = Any
"""An index of FAISS, which is untyped."""
Kind = Literal["flat", "ivf", "hnsw"]

_BLOCK_ROWS = 65536
_TRAINED_ON_PER_LIST = 64
"""An IVF is trained on this many vectors for each of its lists."""


class ApproximateIndex:
    """An index of FAISS and its kind.

    Attributes:
        kind: See `build_index`.
        index: The FAISS index.
    """

    def __init__(self, kind: Kind, index: FaissIndex) -> None:
        self.kind, self.index = kind, index

    def search(self, queries: Scores, k: int) -> tuple[Scores, Rows]:
        """Does what `exact.search` does, but may miss neighbours; a row is -1 where fewer than `k` were found.

        Raises:
            FoundryError: The shapes do not fit, `k` is below 1, or a query isn't finite.
        """
        _require_finite(queries, "query")
        if queries.ndim != 2 or queries.shape[1] != self.index.d or k < 1:
            raise FoundryError(f"Can't search: queries {queries.shape}, vectors of {self.index.d}, k {k}.")
        k = min(k, self.index.ntotal)
        if not k:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return scores, rows

    def measure(self, queries: Scores, shards: Sequence[Floats], k: int, sample: int = 200, seed: int = 0) -> float:
        """Returns, and logs, the recall at `k` against exact search on a sample of the queries."""
        sampled = queries[np.random.default_rng(seed).permutation(len(queries))[:sample]]
        recall_at_k = recall(self.search(sampled, k)[1], search_shards(sampled, shards, k)[1])
        _log.info("%s: recall@%d %.4f on %d queries", self.kind, k, recall_at_k, len(sampled))
        return recall_at_k


def build_index(shards: Sequence[Floats], kind: Kind = "flat", **parameters: int) -> ApproximateIndex:
    """Builds an index over all shards laid end to end.

    Args:
        shards: [n_i, d] each, of any float type; may be memory-mapped.
        kind: `flat` compares with all vectors, `ivf` with the lists of the nearest centroids, `hnsw` searches a graph.
        parameters: Those of the kind, with their defaults. `ivf`: ``lists`` (4 sqrt(n)), ``probes`` (lists / 16), the
            number of lists that are searched, and ``seed``. `hnsw`: ``links`` of each vector (32), ``build_width``
            (80) and ``search_width`` (128), FAISS's efConstruction and efSearch.

    Raises:
        FoundryError: No shard, shards of different sizes or dtypes, a vector that isn't finite, an unknown `kind` or
            parameter.
    """
    dtypes: set[np.dtype[Any]] = set()
    for shard in shards:
        require_one_dtype(dtypes, shard)
    sizes = {shard.shape[1] if shard.ndim == 2 else -1 for shard in shards}
    if len(sizes) != 1 or -1 in sizes:
        raise FoundryError(f"Can't build an index of shards of the shapes {[shard.shape for shard in shards]}.")
    makers: dict[str, Callable[..., FaissIndex]] = {"flat": _flat, "ivf": _ivf, "hnsw": _hnsw}
    if kind not in makers:
        raise FoundryError(f"Unknown index {kind!r}.", hint=f"One of {', '.join(makers)}.")
    try:
        index = makers[kind](shards, sizes.pop(), **parameters)
    except TypeError as error:
        raise FoundryError(f"FaissIndex {kind!r}: {error}.", hint="See build_index for the parameters.") from error
    for block in _blocks(shards):
        index.add(block)
    return ApproximateIndex(kind, index)


def recall(rows: NDArray[np.integer[Any]], exact_rows: NDArray[np.integer[Any]]) -> float:
    """Returns the share of `exact_rows` [q, k] that is among `rows` [q, any number], over all queries; 1 for none."""
    if not exact_rows.size:
        return 1.0
    pairs = zip(rows, exact_rows, strict=True)
    return sum(int(np.isin(exact, retrieved).sum()) for retrieved, exact in pairs) / exact_rows.size


def _flat(shards: Sequence[Floats], size: int) -> FaissIndex:
    return faiss.IndexFlatIP(size)


def _ivf(shards: Sequence[Floats], size: int, lists: int = 0, probes: int = 0, seed: int = 0) -> FaissIndex:
    total = sum(map(len, shards))
    lists = min(lists or int(4 * total**0.5), total)
    if not lists:
        raise FoundryError("Can't train an IVF on no vectors.")
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.min_points_per_centroid = seed, 1
    index.nprobe = probes or max(1, lists // 16)
    index.train(_sample(shards, min(total, lists * _TRAINED_ON_PER_LIST), seed))
    return index


def _hnsw(
    shards: Sequence[Floats], size: int, links: int = 32, build_width: int = 80, search_width: int = 128
) -> FaissIndex:
    index = faiss.IndexHNSWFlat(size, links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = build_width, search_width
    return index


def _sample(shards: Sequence[Floats], count: int, seed: int) -> Scores:
    """Returns `count` random vectors of all shards."""
    starts = np.cumsum([0, *map(len, shards)])
    rows = np.sort(np.random.default_rng(seed).permutation(starts[-1])[:count])
    parts = np.split(rows, np.searchsorted(rows, starts[1:-1]))
    by_shard = [shard[part - start] for shard, part, start in zip(shards, parts, starts, strict=False)]
    vectors = np.concatenate(by_shard).astype(np.float32)
    _require_finite(vectors, "vector")
    return vectors


def _blocks(shards: Sequence[Floats]) -> Iterator[Scores]:
    for shard in shards:
        for start in range(0, len(shard), _BLOCK_ROWS):
            block = np.ascontiguousarray(shard[start : start + _BLOCK_ROWS], dtype=np.float32)
            _require_finite(block, "vector")
            yield block


def _require_finite(vectors: Floats, what: str) -> None:
    # FAISS accepts NaN and ranks it first or not at all, so it is refused here.
    if not np.isfinite(vectors).all():
        raise FoundryError(f"Can't search: a {what} isn't finite.")
