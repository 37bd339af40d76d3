"""Exact nearest neighbours by inner product, over vectors that may lie on disk.

A fast, approximate scan selects candidates and never loses a neighbour; candidates are scored again in float32, one
pair at a time. So a score depends on its pair of vectors alone: equal vectors tie however the corpus is cut, and of
equal scores the lower row comes first.

The scan multiplies in bfloat16 where the processor can, at half the cost of float32. Its error is bounded by what
rounding took off each vector: ``|q x - q~ x~| <= |q - q~| |x| + |q~| |x - x~|``. A row is a candidate unless this bound
puts it below the query's threshold, the k-th best score so far. Queries with too many candidates (close clusters) are
scanned in float32 from then on, under the same rule with the error bound of float32 arithmetic.

It needs some tens of megabytes of work memory and twice the result. Knows vectors only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from gme_data.errors import FoundryError

MAX_BLOCK_NUMBERS = 2**20
"""A block of the corpus has at most this many numbers."""
MAX_BLOCK_ROWS = 4096
"""A block of the corpus has at most this many rows."""
INITIAL_SAMPLE = 32
"""The first thresholds are the k-th best scores among this many times k rows; the more rows, the better they are."""
MAX_INITIAL_ROWS = 2**15
"""The first thresholds are taken from at most this many rows."""
MAX_SCANNED_SCORES = 2**23
"""At most this many bfloat16 scores of the scan are in memory; half as many in float32."""
MIN_TILE_QUERIES = 256
"""At least this many queries are scanned at a time, since every tile of them reads all blocks again."""
SORTED_QUERIES = 256
"""The candidates of at most this many queries are sorted or pruned at a time."""
FP32_FALLBACK_RATIO = 32
"""A query with more than one candidate in this many rows, beyond what its threshold explains, is scanned in float32."""
MIN_QUERIES_FOR_BF16 = 64
"""With fewer queries, rounding the corpus costs more than multiplying in bfloat16 saves."""
MAX_LENGTH = 1e18
"""Vectors of this length and more are refused, since inner products of longer ones may overflow float32."""
_HAS_FAST_BF16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]
Bits = NDArray[np.int16]
"""Scores in bfloat16 by their bits, since NumPy has no such type."""
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
BlockBound = tuple[np.float32, np.float32]
"""The length of the longest row of a block, and that of the largest residue of rounding."""
Scan = tuple[list[Scores | Bits], Floats]
"""Scores [tile, m_i] of each block, and by how much each query's may be off, [tile]."""


def search(queries: Scores, corpus: Floats, k: int) -> tuple[Scores, Rows]:
    """Finds the `k` rows of `corpus` with the largest inner products, for each query.

    Args:
        queries: [q, d].
        corpus: [n, d] of any float type; may be memory-mapped.
        k: At least 1; of fewer rows than `k`, all n are returned.

    Returns:
        Scores float32 and rows int64, both [q, min(k, n)], by falling score, ties by rising row.

    Raises:
        FoundryError: The shapes do not fit, `k` is below 1, shards are no floats or of different dtypes, or a vector
            isn't finite or is longer than 1e18.
    """
    return search_shards(queries, [corpus], k)


def search_shards(queries: Scores, shards: Iterable[Floats], k: int) -> tuple[Scores, Rows]:
    """Does what `search` does over all shards laid end to end, which are read once, in blocks.

    Args:
        queries: [q, d].
        shards: [n_i, d] each, of any float type; best memory-mapped. Up to 32,768 rows of them are held in memory.
        k: At least 1.

    Returns:
        As `search`; rows count on from shard to shard.

    Raises:
        FoundryError: As `search`.
    """
    if queries.ndim != 2 or k < 1:
        raise FoundryError(f"Can't search: queries {queries.shape}, k {k}.")
    neighbours = _Neighbours(np.ascontiguousarray(queries, dtype=np.float32), k)
    offset = 0
    window: list[Floats] = []
    dtypes: set[np.dtype[Any]] = set()
    for shard in shards:
        require_one_dtype(dtypes, shard)
        if shard.ndim != 2 or shard.shape[1] != queries.shape[1]:
            raise FoundryError(f"Can't search: queries {queries.shape}, corpus {shard.shape}, k {k}.")
        for block in _blocks(shard):
            if sum(map(len, window)) >= neighbours.window_rows:
                offset += neighbours.add(window, offset)
                window = []
            window.append(block)
    offset += neighbours.add(window, offset)
    return neighbours.result(min(k, offset))


def require_one_dtype(dtypes: set[np.dtype[Any]], shard: Floats) -> None:
    """Checks that a shard has the dtype of those before it, which `dtypes` holds: another job stored any other.

    Raises:
        FoundryError: It has not, or holds no floats.
    """
    dtypes.add(shard.dtype)
    if len(dtypes) > 1 or not np.issubdtype(shard.dtype, np.floating):
        names = " and ".join(sorted(map(str, dtypes)))
        raise FoundryError(f"Can't search: the shards hold {names}, expected one float type for all.")


class _Neighbours:
    """The best rows so far of each query.

    A query has a pool of rows with their scores, by rising row; a pool that grows too large is pruned to its best `k`.
    From then on `_threshold` [q] is the least score that still gets in: the float after the k-th best, since a later
    row loses a tie.
    """

    def __init__(self, queries: Scores, k: int) -> None:
        self._queries, self._k, self._scanned_rows = queries, k, 0
        self._scores = np.full((len(queries), 0), -np.inf, np.float32)
        self._rows = np.zeros((len(queries), 0), np.int64)
        self._count = np.zeros(len(queries), np.int64)
        self._threshold = np.full(len(queries), -np.inf, np.float32)
        self._rounded = _tensor(queries).bfloat16()
        self._length, self._residue = _lengths(queries), _residues(queries, self._rounded)
        in_fp32 = not _HAS_FAST_BF16 or len(queries) < MIN_QUERIES_FOR_BF16
        self._in_fp32 = np.full(len(queries), in_fp32)  # which queries are scanned in float32, [q]

    @property
    def window_rows(self) -> int:
        """Rows that are best added next. The first are many, since the first threshold is taken from them."""
        first = max(MAX_BLOCK_ROWS, min(INITIAL_SAMPLE * self._k, MAX_INITIAL_ROWS))
        return 1 if self._scanned_rows else first

    def add(self, window: Sequence[Floats], offset: int) -> int:
        """Takes the good rows of blocks [m_i, d], the first row of which has the number `offset`; offsets rise.

        Returns:
            The number of rows.
        """
        rows = sum(map(len, window))
        if not rows or not len(self._queries):
            return rows
        self._scanned_rows = max(self._scanned_rows, rows)
        in_bf16, in_fp32 = np.flatnonzero(~self._in_fp32), np.flatnonzero(self._in_fp32)
        bounds: list[BlockBound] = []
        for part in _slices(len(in_bf16), max(MIN_TILE_QUERIES, MAX_SCANNED_SCORES // rows)):
            tile = in_bf16[part]
            self._add_candidates(tile, self._scan_bf16(tile, window, bounds), window, offset)
        for part in _slices(len(in_fp32), max(MIN_TILE_QUERIES, MAX_SCANNED_SCORES // rows // 2)):
            tile = in_fp32[part]
            self._add_candidates(tile, self._scan_fp32(tile, window), window, offset)
        self._scanned_rows += rows
        self._prune(np.flatnonzero(self._count > self._k + self._k // 4))
        return rows

    def result(self, k: int) -> tuple[Scores, Rows]:
        """Returns scores and rows [q, k], in order."""
        scores, rows = np.zeros((len(self._queries), k), np.float32), np.zeros((len(self._queries), k), np.int64)
        self._prune(np.flatnonzero(self._count > k))
        for part in _slices(len(scores), SORTED_QUERIES):
            order = _argsort_descending(self._scores[part, :k])
            scores[part] = np.take_along_axis(self._scores[part, :k], order, axis=1)
            rows[part] = np.take_along_axis(self._rows[part, :k], order, axis=1)
        return scores, rows

    def _scan_bf16(self, tile: Rows, window: Sequence[Floats], bounds: list[BlockBound]) -> Scan:
        """Scans in bfloat16. The first tile fills `bounds`, one for each block, and the following ones use them."""
        is_all, has_bounds = len(tile) == len(self._queries), bool(bounds)
        queries = self._rounded if is_all else self._rounded[torch.from_numpy(tile)]
        tables = _tables(len(tile), window, np.int16)
        for block, table in zip(map(_to_float32, window), tables, strict=True):
            rounded = _tensor(block).bfloat16()
            if not has_bounds:
                bounds.append((_lengths(block).max(), _residues(block, rounded).max()))
            torch.mm(queries, rounded.T, out=torch.from_numpy(table).view(torch.bfloat16))
        longest, residue = map(max, zip(*bounds, strict=True))
        length, query_residue = self._length[tile], self._residue[tile]
        # |q - q~| |x| + |q~| |x - x~| with |q~| <= |q| + |q - q~|, and a thousandth more for the rounding of this sum.
        error = 1.001 * (query_residue * longest + (length + query_residue) * residue)
        return tables, error + _fp32_error(length * longest, self._queries.shape[1])

    def _scan_fp32(self, tile: Rows, window: Sequence[Floats]) -> Scan:
        longest, queries = np.float32(0), self._queries[tile]
        tables = _tables(len(tile), window, np.float32)
        for block, table in zip(map(_to_float32, window), tables, strict=True):
            longest = max(longest, _lengths(block).max())
            np.matmul(queries, block.T, out=table)
        return tables, _fp32_error(self._length[tile] * longest, self._queries.shape[1])

    def _add_candidates(self, tile: Rows, scan: Scan, window: Sequence[Floats], offset: int) -> None:
        """Scores the candidates of a scan and puts the good ones into the pools."""
        tables, error = scan
        self._set_first_thresholds(tile, tables, error)
        for block, scores in zip(map(_to_float32, window), tables, strict=True):
            mask = _may_reach(scores, self._threshold[tile] - error)
            candidates, counts = _flat_indices(mask)
            if scores.dtype == np.int16:
                # About k / n of the rows pass a threshold from n rows. Many more are a cluster around the query, which
                # bfloat16 can't tell apart.
                clustered = counts > 16 + len(block) * (1 / FP32_FALLBACK_RATIO + 4 * self._k / self._scanned_rows)
                self._in_fp32[tile[clustered]] = True
                if self._in_fp32[tile].any():
                    clustered = self._in_fp32[tile]
                    (exact,), narrow = self._scan_fp32(tile[clustered], [block])
                    mask[clustered] = _may_reach(exact, self._threshold[tile[clustered]] - narrow)
                    candidates, counts = _flat_indices(mask)
            self._score(tile, candidates, counts, block, offset)
            offset += len(block)

    def _set_first_thresholds(self, tile: Rows, tables: Sequence[Scores | Bits], error: Floats) -> None:
        """Sets a threshold where there is none yet: the k-th best scanned score, less what it may be off."""
        for part in _slices(len(tile), SORTED_QUERIES // 4):
            has_k = sum(scores.shape[1] for scores in tables) >= self._k
            if has_k and np.isinf(self._threshold[tile[part]]).any():
                kth = _kth_scanned(np.concatenate([scores[part] for scores in tables], axis=1), self._k)
                self._threshold[tile[part]] = np.maximum(self._threshold[tile[part]], kth - error[part])

    def _score(self, tile: Rows, candidates: Rows, counts: Rows, block: Scores, offset: int) -> None:
        """Scores candidates, flat indices into [tile, m], and puts those that reach the threshold into the pools."""
        queries = np.flatnonzero(counts)
        tile, counts = tile[queries], counts[queries]
        is_candidate = np.arange(counts.max(initial=0)) < counts[:, None]
        indices = np.full(is_candidate.shape, -1, np.int64)
        indices[is_candidate] = candidates - np.repeat(queries * len(block), counts)
        scores = _pairwise(self._queries[tile], block, indices)
        good = (scores >= self._threshold[tile][:, None]) & is_candidate
        if scores.shape[1] > self._k:
            good &= _top_k(scores, self._k)
        self._pool(tile, good.sum(axis=1), indices[good] + offset, scores[good])

    def _pool(self, tile: Rows, counts: Rows, rows: Rows, scores: Scores) -> None:
        """Adds scored rows, the first ``counts[0]`` of them to query ``tile[0]`` and so on, `k` each at most."""
        self._prune(tile[self._count[tile] + counts > 2 * self._k])
        width, pool_width = int((self._count[tile] + counts).max(initial=0)), self._scores.shape[1]
        if width > pool_width:
            more = ((0, 0), (0, min(2 * self._k, max(width, 2 * pool_width)) - pool_width))
            self._scores = np.pad(self._scores, more, constant_values=-np.inf)
            self._rows = np.pad(self._rows, more)
        columns = np.arange(len(rows)) + np.repeat(self._count[tile] + counts - np.cumsum(counts), counts)
        queries = np.repeat(tile, counts)
        self._scores[queries, columns], self._rows[queries, columns] = scores, rows
        self._count[tile] += counts

    def _prune(self, queries: Rows) -> None:
        """Leaves the best `k` of each of these queries, which have as many, and raises their thresholds."""
        for part in _slices(len(queries), SORTED_QUERIES):
            tile, k, width = queries[part], self._k, self._count[queries[part]].max()
            scores, rows = self._scores[tile, :width], self._rows[tile, :width]
            best = _top_k(scores, k)
            self._rows[tile, :k], scores = rows[best].reshape(-1, k), scores[best].reshape(-1, k)
            self._scores[tile, :k], self._scores[tile, k:width], self._count[tile] = scores, -np.inf, k
            self._threshold[tile] = np.nextafter(scores.min(axis=1), np.float32(np.inf))


def _blocks(shard: Floats) -> Iterator[Floats]:
    rows = MAX_BLOCK_ROWS
    while rows > 1 and rows * shard.shape[1] > MAX_BLOCK_NUMBERS:
        rows //= 2
    return (shard[start : start + rows] for start in range(0, len(shard), rows))


def _to_float32(block: Floats) -> Scores:
    """Returns a block in float32: the block itself if it is that already."""
    if block.dtype == np.float16:  # by torch, since NumPy takes 15 times as long
        return _tensor(block).float().numpy()
    return np.ascontiguousarray(block, dtype=np.float32)


def _tensor(array: Floats) -> torch.Tensor:
    """Returns a tensor that shares the memory of `array`, or a copy of what is read-only, such as a mapped file."""
    return torch.from_numpy(array if array.flags.writeable else np.array(array))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _pairwise(queries: Scores, block: Scores, indices: Rows) -> Scores:
    """Returns inner products of each query with the rows at its indices [q, m], summed pair by pair; -inf for -1."""
    scores = np.empty(indices.shape, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (scores, queries, block, indices)]
    faiss.fvec_inner_products_by_idx(*pointers, block.shape[1], *indices.shape)  # type: ignore[attr-defined]
    return scores


def _tables(queries: int, window: Sequence[Floats], dtype: type[np.float32 | np.int16]) -> list[Scores | Bits]:
    """Returns an empty table [queries, m_i] for each block."""
    ends = np.cumsum([queries * len(block) for block in window])
    # One allocation for all: it is given back in one piece, where many would leave the heap full of holes.
    tables = np.split(np.empty(ends[-1], dtype), ends[:-1])
    return [table.reshape(queries, -1) for table in tables]


def _flat_indices(mask: Mask) -> tuple[Rows, Rows]:
    """Returns the flat indices of what is true in a mask [q, m], and how many there are for each query, [q]."""
    indices = np.flatnonzero(mask)
    return indices, np.diff(np.searchsorted(indices, np.arange(len(mask) + 1) * mask.shape[1]))


def _may_reach(scores: Scores | Bits, floor: Floats) -> Mask:
    """Returns where scanned scores [q, m] may have been at least `floor` [q] before they were rounded."""
    if scores.dtype != np.int16:
        return scores >= floor[:, None]
    # Rounding keeps the order: the rounded score of a row above the floor isn't below the rounded floor.
    floor_bits = _sortable(_to_bits(floor))
    floor_bits -= floor_bits == 0  # minus zero comes before zero in bits, and equals it
    bits = scores.view(np.int16)
    # The bits of positive numbers are in order as they are, which saves a pass over the table.
    return (bits if floor_bits.min() > 0 else _sortable(bits)) >= floor_bits[:, None]


def _kth_scanned(scores: Scores | Bits, k: int) -> Floats:
    """Returns the least that each query's k-th largest score can have been before it was rounded."""
    kth = _kth(scores, k)
    if scores.dtype != np.int16:
        return kth
    numbers = _from_bits(kth if kth.min() > 0 else _sortable(_kth(_sortable(scores.view(np.int16)), k)))
    return numbers - np.abs(numbers) * np.float32(2.0**-8)


def _kth(scores: NDArray[Any], k: int) -> NDArray[Any]:
    """Returns the k-th largest score of each query."""
    return np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]


def _top_k(scores: Scores, k: int) -> Mask:
    """Returns where the `k` largest scores of each query are; of equal ones, the first."""
    kth = _kth(scores, k)[:, None]
    top: Mask = scores >= kth
    if np.count_nonzero(top) > k * len(scores):
        tied = scores == kth
        top ^= tied & (np.cumsum(tied, axis=1) > k - (top & ~tied).sum(axis=1, keepdims=True))
    return top


def _argsort_descending(scores: Scores) -> Rows:
    """Returns indices by falling score, ties by rising index: a stable argsort at a fifth of its cost."""
    bits = (scores + np.float32(0)).view(np.int32)  # the sum makes one zero of both
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    # Score and index share one integer, so that an unstable sort, which is faster, gives the stable order.
    keys = (~ascending.astype(np.int64) << 32) | np.arange(scores.shape[1])
    keys.sort(axis=1)
    indices: Rows = keys & 0xFFFFFFFF
    return indices


def _fp32_error(product: Floats, dimension: int) -> Floats:
    """Bounds the error of a float32 scan and of a final score together: about d roundings each, in whatever order."""
    error: Floats = product * (2 * (dimension + 8) * 2.0**-24) + 1e-30
    return error


def _lengths(vectors: Scores) -> Scores:
    """Returns upper bounds of the lengths: a hair more than computed, since the squares of tiny numbers underflow."""
    lengths: Scores = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) + np.float32(1e-18 * vectors.shape[1] ** 0.5)
    if not (lengths < MAX_LENGTH).all():
        raise FoundryError("Can't search: a vector isn't finite, or longer than 1e18.")
    return lengths


def _residues(vectors: Scores, rounded: torch.Tensor) -> Scores:
    """Returns the lengths of what rounding took off."""
    residues = rounded.float().numpy()
    return _lengths(np.subtract(vectors, residues, out=residues))


def _to_bits(numbers: Floats) -> Bits:
    bits: Bits = torch.from_numpy(numbers).bfloat16().view(torch.int16).numpy()
    return bits


def _from_bits(bits: Bits) -> Scores:
    return (bits.astype(np.int32) << 16).view(np.float32)


def _sortable(bits: Bits) -> Bits:
    """Maps the bits of bfloat16 to integers of the same order, and back."""
    return bits ^ ((bits >> 15) & 0x7FFF)
