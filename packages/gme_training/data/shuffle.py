"""Random orders of any length that are never written down: place by place, in constant memory.

A Feistel network is a one-to-one map of 0 .. 4^k - 1, whatever its rounds do (Luby and Rackoff 1988); walking on until
the result is below n makes it one of 0 .. n - 1 (Black and Rogaway 2002). Knows numbers alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_ROUNDS = 6
_CHUNK = 256
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def shuffled(places: Ints, length: int, seed: Sequence[int]) -> Ints:
    """What stands at some `places` of a random order of 0 .. length - 1.

    Args:
        places: int64 [k], each below `length`.
        length: At least 1.
        seed: Names the order.

    Returns:
        int64 [k]; of all places, every number once.
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence(list(seed)).generate_state(_ROUNDS, np.uint64).astype(np.uint64)
    values = places.astype(np.uint64)
    outside = np.ones(len(values), dtype=np.bool_)
    while outside.any():
        values[outside] = _network(values[outside], half, keys)
        outside = values >= length
    return values.astype(np.int64)


def shuffled_all(length: int, seed: Sequence[int]) -> Iterator[int]:
    """All of such an order, little by little."""
    for start in range(0, length, _CHUNK):
        yield from shuffled(np.arange(start, min(start + _CHUNK, length)), length, seed).tolist()


def _network(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << shift) | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al. 2014): every bit of the input reaches every bit of the result."""
    for shift, factor in zip((30, 27), _MULTIPLIERS, strict=True):
        values = (values ^ (values >> np.uint64(shift))) * factor
    return values ^ (values >> np.uint64(31))
