"""Near duplicates, of texts by MinHash and of pictures by difference hash. Knows signatures; not what they are for."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.digests import sha256_bytes

_SHINGLE = 5
_BANDS, _ROWS = 16, 4
"""Two texts meet in a band with probability 1 - (1 - s^4)^16 at a similarity s: 0.99 at 0.7, 0.4 at 0.42."""
_PRIME = np.uint64((1 << 61) - 1)
_SIDE = 8
Signature = NDArray[np.uint64]


class NearTexts:
    """Remembers texts, and says of a new one which it nearly repeats. About 300 bytes of memory a text.

    Args:
        similarity: Share of equal MinHash values from which two texts count as the same; 1 switches to exact repeats.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._exact: dict[str, str] = {}
        self._bands: dict[bytes, list[str]] = {}
        self._signatures: dict[str, Signature] = {}

    def repeats(self, id_: str, text: str) -> str | None:
        """Id of an earlier text that this one repeats; None if it is new, and remembered from now on."""
        words = re.findall(r"\w+", text.casefold())
        digest = sha256_bytes(" ".join(words).encode())[:32]
        if digest in self._exact:
            return self._exact[digest]
        if self._similarity < 1:
            signature = min_hash(words)
            keys = [bytes([band]) + signature[band * _ROWS : (band + 1) * _ROWS].tobytes() for band in range(_BANDS)]
            for other in dict.fromkeys(one for key in keys for one in self._bands.get(key, ())):
                if (self._signatures[other] == signature).mean() >= self._similarity:
                    return other
            for key in keys:
                self._bands.setdefault(key, []).append(id_)
            self._signatures[id_] = signature
        self._exact[digest] = id_
        return None


def min_hash(words: list[str]) -> Signature:
    """64 MinHash values of the shingles of five words; of single letters where there are few words."""
    units = words if len(words) > _SHINGLE else list("".join(words))
    shingles = {" ".join(units[start : start + _SHINGLE]) for start in range(max(1, len(units) - _SHINGLE + 1))}
    # crc-like 64-bit values from a digest that is the same on every machine and run.
    hashes = np.array([int(sha256_bytes(one.encode())[:12], 16) for one in shingles], np.uint64)
    with np.errstate(over="ignore"):
        values = (hashes[:, None] * _FACTORS + _SHIFTS) % _PRIME  # [shingles, 64]
    signature: Signature = values.min(axis=0)
    return signature


_DRAW = np.random.default_rng(0)
_FACTORS = _DRAW.integers(1, 1 << 60, _BANDS * _ROWS, dtype=np.uint64)
_SHIFTS = _DRAW.integers(0, 1 << 60, _BANDS * _ROWS, dtype=np.uint64)


def difference_hash(picture: Image.Image) -> int:
    """64 bits: whether each cell of an 8x8 grid is brighter than its right neighbour."""
    small = np.asarray(picture.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BILINEAR), dtype=np.int16)
    bits = np.packbits(small[:, :-1] > small[:, 1:])
    return int.from_bytes(bits.tobytes(), "big")


class NearPictures:
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
