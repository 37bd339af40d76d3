"""Which rows of a set are read, and how many examples of it are used: pure functions of counts and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Ints = NDArray[np.int64]
_TOLERANCE = 1e-6
"""The most that rounding errors of floats may add up to, so that a quota of 2.9999999 counts as 3."""


def sample_rows(total: int, count: int | None, seed: int, name: str) -> Ints | None:
    """Samples row numbers without replacement; returns them in ascending order, None for all rows.

    Args:
        total: Rows of the set.
        count: Rows to sample; None takes all.
        seed: The seed of the corpus.
        name: The name of the set, so that two sets of one size get different samples.
    """
    if count is None or count >= total:
        return None
    set_seed = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
    sampled = np.random.default_rng(set_seed).choice(total, size=count, replace=False, shuffle=False)
    return np.sort(sampled.astype(np.int64))


def select_rows(rows: Iterable[T], sampled: Ints | None) -> Iterator[T]:
    """Yields the sampled rows in their order; reads no further than the last of them."""
    if sampled is None:
        yield from rows
        return
    numbers = iter(sampled.tolist())
    next_number = next(numbers, None)
    for number, row in enumerate(rows):
        if next_number is None:
            return
        if number == next_number:
            yield row
            next_number = next(numbers, None)


def allocate(total: float, available: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Divides a number of examples by weight; a set that has fewer than its quota leaves the others the difference.

    Args:
        total: Examples wanted together; if fewer are available, all are allocated.
        available: Examples that each set has, by name.
        weights: Weight of each set, by name.
    """
    quotas: dict[str, float] = {}
    open_names = sorted(name for name, count in available.items() if count)
    remaining = min(float(total), float(sum(available.values())))
    # Each round fixes the sets that can't fill their quota, which raises the quota of the others; so at most as many
    # rounds as sets.
    while open_names:
        unit = remaining / sum(weights[name] for name in open_names)
        exhausted = [name for name in open_names if available[name] <= weights[name] * unit]
        if not exhausted:
            quotas |= {name: weights[name] * unit for name in open_names}
            break
        quotas |= {name: float(available[name]) for name in exhausted}
        remaining -= sum(available[name] for name in exhausted)
        open_names = [name for name in open_names if name not in exhausted]
    return _round_to_sum({name: quotas.get(name, 0.0) for name in available})


def _round_to_sum(quotas: Mapping[str, float]) -> dict[str, int]:
    """Returns whole numbers of the same sum, by the method of largest remainders."""
    floors = {name: int(quota + _TOLERANCE) for name, quota in quotas.items()}
    missing = int(sum(quotas.values()) + _TOLERANCE) - sum(floors.values())
    rounded_up = sorted(quotas, key=lambda name: (floors[name] - quotas[name], name))[:missing]
    return {name: count + (name in rounded_up) for name, count in floors.items()}


def allocate_by_kind(
    available: Mapping[str, int], shares: Mapping[Any, float] | None, examples: int | None
) -> dict[str, int]:
    """Returns the examples of each kind: by the shares, as many as `examples` and the scarcest kind allow.

    Args:
        available: Examples of each kind.
        shares: Share of each kind; a kind without one gets no examples. None uses all examples of each kind.
        examples: Examples wanted together; None is as many as the scarcest kind allows.
    """
    if shares is None:
        weights = {kind: max(count, 1) for kind, count in available.items()}
        return allocate(examples or sum(available.values()), available, weights)
    # A kind that lacks examples lowers the total: unlike the sets of one kind, no other kind fills the gap.
    scarcest = min((available.get(kind, 0) / share for kind, share in shares.items()), default=0.0)
    unit = scarcest if examples is None else min(scarcest, examples / sum(shares.values()))
    return {kind: int(shares[kind] * unit + _TOLERANCE) if kind in shares else 0 for kind in available}
