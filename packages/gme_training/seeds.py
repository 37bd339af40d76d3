"""Seeds as a function of where random numbers are used, so that a resumed run draws what it would have drawn."""

from __future__ import annotations

from collections.abc import Sequence


def derive_seed(parts: Sequence[int]) -> int:
    """Combines a tuple of numbers into one 63-bit seed, with the multiplier and increment of Knuth's MMIX generator."""
    seed = 0
    for part in parts:
        seed = (seed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return seed
