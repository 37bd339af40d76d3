"""Exact nearest neighbours by inner product, over vectors that may lie on disk.

A scan is rough and fast and never loses a neighbour; what it lets through is scored again, in float32, one pair at a
time. So a score depends on its pair of vectors alone: equal vectors tie however the corpus is cut, and of equal scores
the lower row comes first.

The rough scan multiplies in bfloat16 where the processor can, at half the cost of float32. How far off it can be is
known from what rounding took off each vector: ``|q x - q~ x~| <= |q - q~| |x| + |q~| |x - x~|``. A row is let through
unless this puts it below the k-th best score so far. Queries that let too much through (close clusters) are scanned in
float32 from then on, under the same rule with the error bound of float32 arithmetic.

Memory: some tens of megabytes of work, and twice the result. Knows vectors only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from gme_data.errors import FoundryError

_BLOCK = 2**20
"""Numbers of the corpus in work at a time ..."""
_ROWS = 4096
"""... and rows, at most."""
_FIRST = 32
"""The first bar is the `k`-th best of so many times `k` rows ..."""
_WINDOW = 2**15
"""... but of no more than these."""
_KEYS = 2**23
"""Rounded scores in memory at a time."""
_FEWEST = 256
"""Queries scanned at a time, at least."""
_LINES = 256
"""Queries whose pools are sorted or cut at a time."""
_CROWD = 32
"""A query that lets more than one in so many rows through without need is scanned in float32."""
_WORTH = 64
"""With fewer queries, rounding the corpus costs more than multiplying in bfloat16 saves."""
_LONGEST = 1e18
_FAST_BFLOAT16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]
Keys = NDArray[np.int16]
"""bfloat16 by its bits."""
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Limits = tuple[np.float32, np.float32]
Scan = tuple[list[Scores | Keys], Floats]
"""Scores [tile, m_i] of each block, rounded or not, and by how much they may have been off before that, [tile]."""


def search(queries: Scores, corpus: Floats, k: int) -> tuple[Scores, Rows]:
    """The `k` rows of `corpus` with the largest inner products, for each query.

    Args:
        queries: [q, d].
        corpus: [n, d], of any float type; may be memory-mapped.
        k: At least 1; with fewer rows than `k`, all n are returned.

    Returns:
        Scores float32 and rows int64, both [q, min(k, n)], by falling score, ties by rising row.

    Raises:
        FoundryError: The shapes do not fit, `k` is below 1, shards are no floats or of different dtypes, or a vector
            isn't finite or is longer than 1e18.
    """
    return search_shards(queries, [corpus], k)


def search_shards(queries: Scores, shards: Iterable[Floats], k: int) -> tuple[Scores, Rows]:
    """As `search` over all shards laid end to end, read once and in blocks.

    Args:
        queries: [q, d].
        shards: [n_i, d] each, of any float type; best memory-mapped. Up to 32,768 rows of them are held on to.
        k: At least 1.

    Returns:
        As `search`; rows count on from shard to shard.

    Raises:
        FoundryError: As `search`.
    """
    if queries.ndim != 2 or k < 1:
        raise FoundryError(f"Can't search: queries {queries.shape}, k {k}.")
    best = _Best(np.ascontiguousarray(queries, dtype=np.float32), k)
    offset = 0
    window: list[Floats] = []
    dtypes: set[np.dtype[Any]] = set()
    for shard in shards:
        require_one_dtype(dtypes, shard)
        if shard.ndim != 2 or shard.shape[1] != queries.shape[1]:
            raise FoundryError(f"Can't search: queries {queries.shape}, corpus {shard.shape}, k {k}.")
        for block in _blocks(shard):
            if sum(map(len, window)) >= best.wanted:
                offset += best.offer(window, offset)
                window = []
            window.append(block)
    offset += best.offer(window, offset)
    return best.result(min(k, offset))


def require_one_dtype(dtypes: set[np.dtype[Any]], shard: Floats) -> None:
    """Check that a shard has the dtype of those before it, which `dtypes` holds: others were stored by another job.

    Raises:
        FoundryError: It has not, or holds no floats.
    """
    dtypes.add(shard.dtype)
    if len(dtypes) > 1 or not np.issubdtype(shard.dtype, np.floating):
        names = " and ".join(sorted(map(str, dtypes)))
        raise FoundryError(f"Can't search: the shards hold {names}, expected one float type for all.")


class _Best:
    """The best rows so far of each query.

    A query has a pool of rows with their scores, by rising row; one that grows too large is cut to its best `k`. From
    then on `_bar` [q] is the least score that still gets in: the float after the k-th best, as a later row loses a tie.
    """

    def __init__(self, queries: Scores, k: int) -> None:
        self._queries, self._k, self._seen = queries, k, 0
        self._scores = np.full((len(queries), 0), -np.inf, np.float32)
        self._rows = np.zeros((len(queries), 0), np.int64)
        self._count = np.zeros(len(queries), np.int64)
        self._bar = np.full(len(queries), -np.inf, np.float32)
        self._rounded = _tensor(queries).bfloat16()
        self._length, self._residue = _lengths(queries), _residues(queries, self._rounded)
        self._single = np.full(len(queries), not _FAST_BFLOAT16 or len(queries) < _WORTH)  # scanned in float32

    @property
    def wanted(self) -> int:
        """Rows that are best offered next: the first bar is the better the more they are."""
        return 1 if self._seen else max(_ROWS, min(_FIRST * self._k, _WINDOW))

    def offer(self, window: Sequence[Floats], offset: int) -> int:
        """Take what is good enough of blocks [m_i, d], the first row of which has the number `offset`; offsets rise.

        Returns:
            The number of rows.
        """
        rows = sum(map(len, window))
        if not rows or not len(self._queries):
            return rows
        self._seen = max(self._seen, rows)
        rounded, single = np.flatnonzero(~self._single), np.flatnonzero(self._single)
        limits: list[Limits] = []
        for part in _tiles(len(rounded), max(_FEWEST, _KEYS // rows)):
            self._offer_to(rounded[part], self._scan_rounded(rounded[part], window, limits), window, offset)
        for part in _tiles(len(single), max(_FEWEST, _KEYS // rows // 2)):
            self._offer_to(single[part], self._scan_single(single[part], window), window, offset)
        self._seen += rows
        self._cut(np.flatnonzero(self._count > self._k + self._k // 4))
        return rows

    def result(self, k: int) -> tuple[Scores, Rows]:
        """Scores and rows [q, k], in order."""
        scores, rows = np.zeros((len(self._queries), k), np.float32), np.zeros((len(self._queries), k), np.int64)
        self._cut(np.flatnonzero(self._count > k))
        for part in _tiles(len(scores), _LINES):
            order = _falling(self._scores[part, :k])
            scores[part] = np.take_along_axis(self._scores[part, :k], order, axis=1)
            rows[part] = np.take_along_axis(self._rows[part, :k], order, axis=1)
        return scores, rows

    def _scan_rounded(self, tile: Rows, window: Sequence[Floats], limits: list[Limits]) -> Scan:
        """In bfloat16. `limits` is filled for the next tile: of each block, the longest row and the largest residue."""
        every, known = len(tile) == len(self._queries), bool(limits)
        queries = self._rounded if every else self._rounded[torch.from_numpy(tile)]
        keys = _tables(len(tile), window, np.int16)
        for block, table in zip(map(_widened, window), keys, strict=True):
            rounded = _tensor(block).bfloat16()
            if not known:
                limits.append((_lengths(block).max(), _residues(block, rounded).max()))
            torch.mm(queries, rounded.T, out=torch.from_numpy(table).view(torch.bfloat16))
        longest, residue = map(max, zip(*limits, strict=True))
        length, lost = self._length[tile], self._residue[tile]
        error = 1.001 * (lost * longest + (length + lost) * residue)
        return keys, error + _noise(length * longest, self._queries.shape[1])

    def _scan_single(self, tile: Rows, window: Sequence[Floats]) -> Scan:
        """In float32."""
        longest, queries = np.float32(0), self._queries[tile]
        keys = _tables(len(tile), window, np.float32)
        for block, table in zip(map(_widened, window), keys, strict=True):
            longest = max(longest, _lengths(block).max())
            np.matmul(queries, block.T, out=table)
        return keys, _noise(self._length[tile] * longest, self._queries.shape[1])

    def _offer_to(self, tile: Rows, scan: Scan, window: Sequence[Floats], offset: int) -> None:
        """Pool what a scan lets through."""
        keys, error = scan
        self._first_bar(tile, keys, error)
        for block, scores in zip(map(_widened, window), keys, strict=True):
            mask = _reaches(scores, self._bar[tile] - error)
            through, counts = _through(mask)
            if scores.dtype == np.int16:
                # No more than the bar explains, unless they lie close together.
                crowded = counts > 16 + len(block) * (1 / _CROWD + 4 * self._k / self._seen)
                self._single[tile[crowded]] = True
                if self._single[tile].any():
                    crowded = self._single[tile]
                    (again,), narrow = self._scan_single(tile[crowded], [block])
                    mask[crowded] = _reaches(again, self._bar[tile[crowded]] - narrow)
                    through, counts = _through(mask)
            self._admit(tile, through, counts, block, offset)
            offset += len(block)

    def _first_bar(self, tile: Rows, keys: Sequence[Scores | Keys], error: Floats) -> None:
        """Where there is no bar yet: the k-th best scanned score, less what it may be off."""
        for part in _tiles(len(tile), _LINES // 4):
            if sum(scores.shape[1] for scores in keys) >= self._k and np.isinf(self._bar[tile[part]]).any():
                kth = _kth_scanned(np.concatenate([scores[part] for scores in keys], axis=1), self._k)
                self._bar[tile[part]] = np.maximum(self._bar[tile[part]], kth - error[part])

    def _admit(self, tile: Rows, through: Rows, counts: Rows, block: Scores, offset: int) -> None:
        """Score what was let through, numbered line by line in [tile, m], and pool what reaches the bar."""
        asked = np.flatnonzero(counts)
        tile, counts = tile[asked], counts[asked]
        inside = np.arange(counts.max(initial=0)) < counts[:, None]
        places = np.full(inside.shape, -1, np.int64)
        places[inside] = through - np.repeat(asked * len(block), counts)
        scores = _pairwise(self._queries[tile], block, places)
        good = (scores >= self._bar[tile][:, None]) & inside
        if scores.shape[1] > self._k:
            good &= _best(scores, self._k)
        self._pool(tile, good.sum(axis=1), places[good] + offset, scores[good])

    def _pool(self, tile: Rows, counts: Rows, rows: Rows, scores: Scores) -> None:
        """Add scored rows, the first ``counts[0]`` of them to query ``tile[0]`` and so on, `k` each at most."""
        self._cut(tile[self._count[tile] + counts > 2 * self._k])
        self._widen(int((self._count[tile] + counts).max(initial=0)))
        slots = np.arange(len(rows)) + np.repeat(self._count[tile] + counts - np.cumsum(counts), counts)
        queries = np.repeat(tile, counts)
        self._scores[queries, slots], self._rows[queries, slots] = scores, rows
        self._count[tile] += counts

    def _widen(self, width: int) -> None:
        have = self._scores.shape[1]
        if width > have:
            more = ((0, 0), (0, min(2 * self._k, max(width, 2 * have)) - have))
            self._scores = np.pad(self._scores, more, constant_values=-np.inf)
            self._rows = np.pad(self._rows, more)

    def _cut(self, queries: Rows) -> None:
        """Leave the best `k` of each of these, which have as many."""
        for slot in _tiles(len(queries), _LINES):
            part, k, width = queries[slot], self._k, self._count[queries[slot]].max()
            scores, rows = self._scores[part, :width], self._rows[part, :width]
            best = _best(scores, k)
            self._rows[part, :k], scores = rows[best].reshape(-1, k), scores[best].reshape(-1, k)
            self._scores[part, :k], self._scores[part, k:width], self._count[part] = scores, -np.inf, k
            self._bar[part] = np.nextafter(scores.min(axis=1), np.float32(np.inf))


def _blocks(shard: Floats) -> Iterator[Floats]:
    rows = _ROWS
    while rows > 1 and rows * shard.shape[1] > _BLOCK:
        rows //= 2
    return (shard[start : start + rows] for start in range(0, len(shard), rows))


def _widened(block: Floats) -> Scores:
    """In float32; itself, where it is that already."""
    if block.dtype == np.float16:  # NumPy takes 15 times as long
        return _tensor(block).float().numpy()
    return np.ascontiguousarray(block, dtype=np.float32)


def _tensor(array: Floats) -> torch.Tensor:
    """Shares memory, but for what is read-only, such as a memory-mapped file."""
    return torch.from_numpy(array if array.flags.writeable else np.array(array))


def _tiles(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _pairwise(queries: Scores, block: Scores, places: Rows) -> Scores:
    """Inner products of each query with the rows at its places [q, m], each summed by itself; -inf at place -1."""
    scores = np.empty(places.shape, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (scores, queries, block, places)]
    faiss.fvec_inner_products_by_idx(*pointers, block.shape[1], *places.shape)  # type: ignore[attr-defined]
    return scores


def _tables(lines: int, window: Sequence[Floats], dtype: type[np.float32 | np.int16]) -> list[Scores | Keys]:
    """[lines, m_i] for each block, in one piece of memory: given back whole, where many pieces would leave holes."""
    ends = np.cumsum([lines * len(block) for block in window])
    tables = np.split(np.empty(ends[-1], dtype), ends[:-1])
    return [table.reshape(lines, -1) for table in tables]


def _through(mask: Mask) -> tuple[Rows, Rows]:
    """Places in a mask [l, m] laid out line by line, and how many are in each line."""
    through = np.flatnonzero(mask)
    return through, np.diff(np.searchsorted(through, np.arange(len(mask) + 1) * mask.shape[1]))


def _reaches(scores: Scores | Keys, floor: Floats) -> Mask:
    """Where scanned scores [l, m] may have been `floor` [l] or more."""
    if scores.dtype != np.int16:
        return scores >= floor[:, None]
    # Rounding keeps the order: the rounded score of a row above the floor isn't below the rounded floor.
    bits = _ordered(_to_bits(floor))
    bits -= bits == 0  # minus zero comes before zero in bits, and equals it
    keys = scores.view(np.int16)
    return (keys if bits.min() > 0 else _ordered(keys)) >= bits[:, None]


def _kth_scanned(scores: Scores | Keys, k: int) -> Floats:
    """The least that the k-th largest of each line can have been before it was rounded."""
    kth = _kth(scores, k)
    if scores.dtype != np.int16:
        return kth
    numbers = _from_bits(kth if kth.min() > 0 else _ordered(_kth(_ordered(scores.view(np.int16)), k)))
    return numbers - np.abs(numbers) * np.float32(2.0**-8)


def _kth(scores: NDArray[Any], k: int) -> NDArray[Any]:
    """The k-th largest of each line."""
    return np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]


def _best(scores: Scores, k: int) -> Mask:
    """Where the `k` largest of each line are; of equal ones, the first."""
    kth = _kth(scores, k)[:, None]
    best: Mask = scores >= kth
    if np.count_nonzero(best) > k * len(scores):
        level = scores == kth
        best ^= level & (np.cumsum(level, axis=1) > k - (best & ~level).sum(axis=1, keepdims=True))
    return best


def _falling(scores: Scores) -> Rows:
    """Places in each line by falling score, ties by rising place: a stable argsort at a fifth of its cost."""
    bits = (scores + np.float32(0)).view(np.int32)  # which makes one zero of both
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (~rising.astype(np.int64) << 32) | np.arange(scores.shape[1])
    keys.sort(axis=1)
    places: Rows = keys & 0xFFFFFFFF
    return places


def _noise(size: Floats, sizes: int) -> Floats:
    """Of a float32 scan and of a final score together: some d roundings each, in whatever order."""
    noise: Floats = size * (2 * (sizes + 8) * 2.0**-24) + 1e-30
    return noise


def _lengths(vectors: Scores) -> Scores:
    """Or a hair more, since the squares of the smallest numbers are lost."""
    lengths: Scores = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) + np.float32(1e-18 * vectors.shape[1] ** 0.5)
    if not (lengths < _LONGEST).all():
        raise FoundryError("Can't search: a vector isn't finite, or longer than 1e18.")
    return lengths


def _residues(vectors: Scores, rounded: torch.Tensor) -> Scores:
    """Lengths of what rounding took off."""
    taken = rounded.float().numpy()
    return _lengths(np.subtract(vectors, taken, out=taken))


def _to_bits(numbers: Floats) -> Keys:
    bits: Keys = torch.from_numpy(numbers).bfloat16().view(torch.int16).numpy()
    return bits


def _from_bits(bits: Keys) -> Scores:
    return (bits.astype(np.int32) << 16).view(np.float32)


def _ordered(bits: Keys) -> Keys:
    """Bits of bfloat16 to integers of the same order, and back."""
    return bits ^ ((bits >> 15) & 0x7FFF)
