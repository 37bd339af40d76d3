"""Finds near duplicates: of texts by MinHash with LSH, of pictures by difference hash. Knows no passage."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.digests import sha256_bytes

_SHINGLE_WORDS = 5
_BANDS, _ROWS = 16, 4
"""Two texts of similarity s share a bucket of some band with probability 1 - (1 - s^4)^16: 0.99 at 0.7, 0.4 at 0.42."""
_MERSENNE_PRIME = np.uint64((1 << 61) - 1)
_GRID_SIDE = 8
_INITIAL_CAPACITY = 1024
Signature = NDArray[np.uint32]


class MinHashIndex:
    """An index of texts that finds near duplicates. It takes some 450 bytes of memory for each text, beside its id.

    Buckets are linked lists in arrays, which take less memory than lists of Python integers.

    Args:
        similarity: Share of equal MinHash values from which two texts count as the same; 1 finds exact repeats alone.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._ids: list[str] = []
        self._exact: dict[bytes, int] = {}
        self._signatures = np.zeros((0, _BANDS * _ROWS), np.uint32)  # [capacity, 64]
        self._previous = np.zeros(
            (0, _BANDS), np.int32
        )  # [capacity, 16]: the previous text of the same bucket, -1 for none
        self._latest = np.zeros((_BANDS, 0), np.int32)  # [16, capacity]: the last text of each bucket, -1 for none

    def find_or_add(self, id_: str, text: str) -> str | None:
        """Returns the id of an earlier text that this one nearly repeats; None, and adds it, if there is none."""
        words = re.findall(r"\w+", text.casefold())
        if self._similarity == 1:
            first = self._exact.setdefault(sha256(" ".join(words).encode()).digest()[:16], len(self._ids))
            duplicate = None if first == len(self._ids) else first
        else:
            duplicate = self._find_or_link(min_hash(words))
        if duplicate is not None:
            return self._ids[duplicate]
        self._ids.append(id_)
        return None

    def _find_or_link(self, signature: Signature) -> int | None:
        """Returns the number of a text with a near signature; None, and links the new text, if there is none."""
        if len(self._ids) == len(self._signatures):
            self._grow()
        buckets = _buckets(signature[None], self._latest.shape[1])[0]  # [16]
        compared: set[int] = set()
        for band, bucket in enumerate(buckets):
            other = int(self._latest[band, bucket])
            while other >= 0:
                if other not in compared and (self._signatures[other] == signature).mean() >= self._similarity:
                    return other
                compared.add(other)
                other = int(self._previous[other, band])
        self._link(len(self._ids), signature, buckets)
        return None

    def _link(self, number: int, signature: Signature, buckets: NDArray[np.int64]) -> None:
        bands = np.arange(_BANDS)
        self._signatures[number] = signature
        self._previous[number] = self._latest[bands, buckets]
        self._latest[bands, buckets] = number

    def _grow(self) -> None:
        """Doubles the capacity. There are as many buckets as texts may come, so all texts are assigned anew."""
        count, capacity = len(self._ids), max(_INITIAL_CAPACITY, 2 * len(self._ids))
        signatures = self._signatures
        self._signatures = np.zeros((capacity, _BANDS * _ROWS), np.uint32)
        self._previous = np.full((capacity, _BANDS), -1, np.int32)
        self._latest = np.full((_BANDS, capacity), -1, np.int32)
        for number, buckets in enumerate(_buckets(signatures[:count], capacity)):
            self._link(number, signatures[number], buckets)


def _buckets(signatures: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Returns the bucket, of `count`, of each band of each signature [n, 64], int64 [n, 16]."""
    bands = signatures.reshape(len(signatures), _BANDS, _ROWS).astype(np.uint64)
    with np.errstate(over="ignore"):  # multiplication modulo 2^64 is meant
        mixed = (bands * _MIXERS).sum(axis=2, dtype=np.uint64) >> np.uint64(20)
    buckets: NDArray[np.int64] = (mixed % np.uint64(max(1, count))).astype(np.int64)
    return buckets


def min_hash(words: list[str]) -> Signature:
    """Returns 64 MinHash values of the shingles of five words; of five letters where there are at most five words."""
    units = words if len(words) > _SHINGLE_WORDS else list("".join(words))
    shingles = {
        " ".join(units[start : start + _SHINGLE_WORDS]) for start in range(max(1, len(units) - _SHINGLE_WORDS + 1))
    }
    # Of a digest, since Python's `hash` of a text differs from process to process.
    hashes = np.array([int(sha256_bytes(shingle.encode())[:12], 16) for shingle in shingles], np.uint64)
    with np.errstate(over="ignore"):
        values = (hashes[:, None] * _FACTORS + _SHIFTS) % _MERSENNE_PRIME  # [shingles, 64]
    # 32 bits suffice: one pair of different values in four billion is taken for equal.
    signature: Signature = values.min(axis=0).astype(np.uint32)
    return signature


_RANDOM = np.random.default_rng(0)
_FACTORS = _RANDOM.integers(1, 1 << 60, _BANDS * _ROWS, dtype=np.uint64)
_SHIFTS = _RANDOM.integers(0, 1 << 60, _BANDS * _ROWS, dtype=np.uint64)
_MIXERS = _RANDOM.integers(1, 1 << 62, _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def difference_hash(picture: Image.Image) -> int:
    """Returns 64 bits: whether each cell of an 8x8 grid is brighter than its right neighbour (dHash)."""
    small = np.asarray(
        picture.convert("L").resize((_GRID_SIDE + 1, _GRID_SIDE), Image.Resampling.BILINEAR), dtype=np.int16
    )
    bits = np.packbits(small[:, :-1] > small[:, 1:])
    return int.from_bytes(bits.tobytes(), "big")


class PictureHashIndex:
    """An index of difference hashes with exact search by Hamming distance.

    Two hashes that differ in at most `distance` (< 8) bits share at least one of their 8 bytes, by the pigeonhole
    principle, so only hashes that share a byte are compared.
    """

    def __init__(self, hashes: Iterable[int], distance: int) -> None:
        self._distance = distance
        self._tables: list[dict[int, set[int]]] = [{} for _ in range(8)]
        for picture_hash in hashes:
            for byte, table in enumerate(self._tables):
                table.setdefault(picture_hash >> (8 * byte) & 255, set()).add(picture_hash)

    def contains_near(self, picture_hash: int) -> bool:
        """Says whether a hash of the index differs in at most `distance` bits."""
        buckets = (self._tables[byte].get(picture_hash >> (8 * byte) & 255, ()) for byte in range(8))
        return any((picture_hash ^ other).bit_count() <= self._distance for bucket in buckets for other in bucket)
