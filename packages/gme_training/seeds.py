"""Random numbers as a function of where they are needed, so that a run that is resumed draws what it would have."""

from __future__ import annotations

from collections.abc import Sequence


def mixed(parts: Sequence[int]) -> int:
    """One 63-bit seed for a tuple of numbers."""
    seed = 0
    for part in parts:
        seed = (seed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return seed
