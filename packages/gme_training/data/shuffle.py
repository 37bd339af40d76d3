"""Random permutations of any length that are never stored: each element is computed by itself, in constant memory.

A Feistel network is a bijection of 0 .. 4^k - 1, whatever its rounds compute (Luby and Rackoff 1988); applied again
until the result is below n, it is a bijection of 0 .. n - 1 (cycle walking, Black and Rogaway 2002). Knows only numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_ROUNDS = 6
"""The number of rounds of the Feistel network."""
_CHUNK = 256
"""The number of elements that `permutation` computes at once."""
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""The multipliers of splitmix64."""


def permuted(positions: Ints, length: int, seed: Sequence[int]) -> Ints:
    """Returns the elements at some positions of a random permutation of 0 .. length - 1.

    Args:
        positions: int64 [k], each below `length`.
        length: At least 1.
        seed: Selects the permutation.

    Returns:
        int64 [k]; for all positions, every number once.
    """
    half_bits = max(1, ((length - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence(list(seed)).generate_state(_ROUNDS, np.uint64).astype(np.uint64)
    values = positions.astype(np.uint64)
    outside = np.ones(len(values), dtype=np.bool_)
    while outside.any():
        values[outside] = _feistel_network(values[outside], half_bits, keys)
        outside = values >= length
    return values.astype(np.int64)


def permutation(length: int, seed: Sequence[int]) -> Iterator[int]:
    """Yields all elements of such a permutation in order, a chunk at a time."""
    for start in range(0, length, _CHUNK):
        yield from permuted(np.arange(start, min(start + _CHUNK, length)), length, seed).tolist()


def _feistel_network(values: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    high, low = values >> shift, values & mask
    for key in keys:
        high, low = low, high ^ (_splitmix64(low + key) & mask)
    return (high << shift) | low


def _splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Applies the finaliser of splitmix64 (Steele et al. 2014): every input bit affects every output bit."""
    for shift, factor in zip((30, 27), _MULTIPLIERS, strict=True):
        values = (values ^ (values >> np.uint64(shift))) * factor
    return values ^ (values >> np.uint64(31))
