"""Near duplicates, of texts by MinHash and of pictures by difference hash. Knows signatures; not what they are for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.digests import sha256_bytes

_SHINGLE = 5
_BANDS, _ROWS = 16, 4
"""Two texts meet in a band with probability 1 - (1 - s^4)^16 at a similarity s: 0.99 at 0.7, 0.4 at 0.42."""
_PRIME = np.uint64((1 << 61) - 1)
_SIDE = 8
_FIRST_ROOM = 1024
Signature = NDArray[np.uint32]


class MinHashIndex:
    """Remembers texts, and says of a new one which it nearly repeats. Some 450 bytes of memory a text, beside its id.

    Args:
        similarity: Share of equal MinHash values from which two texts count as the same; 1 switches to exact repeats.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._ids: list[str] = []
        self._exact: dict[bytes, int] = {}
        self._signatures = np.zeros((0, _BANDS * _ROWS), np.uint32)  # [room, 64]
        self._next = np.zeros((0, _BANDS), np.int32)  # [room, 16]: the text before in the same bucket, -1 is none
        self._heads = np.zeros((_BANDS, 0), np.int32)  # [16, room]: the last text of each bucket

    def repeats(self, id_: str, text: str) -> str | None:
        """Id of an earlier text that this one repeats; None if it is new, and remembered from now on."""
        words = re.findall(r"\w+", text.casefold())
        if self._similarity == 1:
            earlier = self._exact.setdefault(sha256(" ".join(words).encode()).digest()[:16], len(self._ids))
            found = None if earlier == len(self._ids) else earlier
        else:
            found = self._near(min_hash(words))
        if found is not None:
            return self._ids[found]
        self._ids.append(id_)
        return None

    def _near(self, signature: Signature) -> int | None:
        """The number of a text whose signature is near; the new one is added if there is none."""
        if len(self._ids) == len(self._signatures):
            self._widen()
        buckets = _buckets(signature[None], self._heads.shape[1])[0]  # [16]
        looked: set[int] = set()
        for band, bucket in enumerate(buckets):
            other = int(self._heads[band, bucket])
            while other >= 0:
                if other not in looked and (self._signatures[other] == signature).mean() >= self._similarity:
                    return other
                looked.add(other)
                other = int(self._next[other, band])
        self._link(len(self._ids), signature, buckets)
        return None

    def _link(self, number: int, signature: Signature, buckets: NDArray[np.int64]) -> None:
        bands = np.arange(_BANDS)
        self._signatures[number] = signature
        self._next[number] = self._heads[bands, buckets]
        self._heads[bands, buckets] = number

    def _widen(self) -> None:
        """Twice the room; buckets are dealt anew, as there are as many as there is room."""
        count, room = len(self._ids), max(_FIRST_ROOM, 2 * len(self._ids))
        signatures = self._signatures
        self._signatures = np.zeros((room, _BANDS * _ROWS), np.uint32)
        self._next = np.full((room, _BANDS), -1, np.int32)
        self._heads = np.full((_BANDS, room), -1, np.int32)
        for number, buckets in enumerate(_buckets(signatures[:count], room)):
            self._link(number, signatures[number], buckets)


def _buckets(signatures: NDArray[np.uint32], room: int) -> NDArray[np.int64]:
    """The bucket of each band of each signature [n, 64], int64 [n, 16]."""
    bands = signatures.reshape(len(signatures), _BANDS, _ROWS).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (bands * _MIXERS).sum(axis=2, dtype=np.uint64) >> np.uint64(20)
    buckets: NDArray[np.int64] = (mixed % np.uint64(max(1, room))).astype(np.int64)
    return buckets


def min_hash(words: list[str]) -> Signature:
    """64 MinHash values of the shingles of five words; of single letters where there are few words."""
    units = words if len(words) > _SHINGLE else list("".join(words))
    shingles = {" ".join(units[start : start + _SHINGLE]) for start in range(max(1, len(units) - _SHINGLE + 1))}
    # crc-like 64-bit values from a digest that is the same on every machine and run.
    hashes = np.array([int(sha256_bytes(one.encode())[:12], 16) for one in shingles], np.uint64)
    with np.errstate(over="ignore"):
        values = (hashes[:, None] * _FACTORS + _SHIFTS) % _PRIME  # [shingles, 64]
    # The lower half tells two values apart as well: one pair in four billion is taken for equal.
    signature: Signature = values.min(axis=0).astype(np.uint32)
    return signature


_DRAW = np.random.default_rng(0)
_FACTORS = _DRAW.integers(1, 1 << 60, _BANDS * _ROWS, dtype=np.uint64)
_SHIFTS = _DRAW.integers(0, 1 << 60, _BANDS * _ROWS, dtype=np.uint64)
_MIXERS = _DRAW.integers(1, 1 << 62, _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def difference_hash(picture: Image.Image) -> int:
    """64 bits: whether each cell of an 8x8 grid is brighter than its right neighbour."""
    small = np.asarray(picture.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BILINEAR), dtype=np.int16)
    bits = np.packbits(small[:, :-1] > small[:, 1:])
    return int.from_bytes(bits.tobytes(), "big")


class PictureHashIndex:
    """Difference hashes of known pictures, searched by Hamming distance, exactly.

    By the pigeonhole, two hashes at most `distance` (< 8) apart share at least one of their 8 bytes.
    """

    def __init__(self, hashes: Iterable[int], distance: int) -> None:
        self._distance = distance
        self._tables: list[dict[int, set[int]]] = [{} for _ in range(8)]
        for one in hashes:
            for byte, table in enumerate(self._tables):
                table.setdefault(one >> (8 * byte) & 255, set()).add(one)

    def has(self, picture_hash: int) -> bool:
        """Whether a known picture is at most `distance` bits away."""
        near = (self._tables[byte].get(picture_hash >> (8 * byte) & 255, ()) for byte in range(8))
        return any((picture_hash ^ other).bit_count() <= self._distance for found in near for other in found)
