"""Which rows of a set are read, and how many examples of it are taken: pure functions of counts and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Ints = NDArray[np.int64]
_SLACK = 1e-6
"""What rounding errors of floats may add up to."""


def draw(total: int, wanted: int | None, seed: int, name: str) -> Ints | None:
    """Numbers of the rows that are drawn, ascending; None for all.

    Args:
        total: Rows that there are.
        wanted: Rows that are wanted.
        seed: Of the corpus.
        name: Of the set, so that sets of one size are not drawn alike.
    """
    if wanted is None or wanted >= total:
        return None
    own = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
    drawn = np.random.default_rng(own).choice(total, size=wanted, replace=False, shuffle=False)
    return np.sort(drawn.astype(np.int64))


def take(rows: Iterable[T], drawn: Ints | None) -> Iterator[T]:
    """The rows that are drawn, in their order; reads no further than the last of them."""
    if drawn is None:
        yield from rows
        return
    numbers = iter(drawn.tolist())
    next_number = next(numbers, None)
    for number, row in enumerate(rows):
        if next_number is None:
            return
        if number == next_number:
            yield row
            next_number = next(numbers, None)


def allocate(total: float, there: Mapping[str, int], parts: Mapping[str, float]) -> dict[str, int]:
    """Divide a number of examples by parts, none getting more than there is; what one lacks, the others get.

    Args:
        total: Examples wanted together; as many as there are if that is less.
        there: Examples that there are, by name.
        parts: Part of each name.
    """
    given: dict[str, float] = {}
    open_names = sorted(name for name, count in there.items() if count)
    left = min(float(total), float(sum(there.values())))
    while open_names:
        unit = left / sum(parts[name] for name in open_names)
        full = [name for name in open_names if there[name] <= parts[name] * unit]
        if not full:
            given |= {name: parts[name] * unit for name in open_names}
            break
        given |= {name: float(there[name]) for name in full}
        left -= sum(there[name] for name in full)
        open_names = [name for name in open_names if name not in full]
    return _rounded({name: given.get(name, 0.0) for name in there})


def _rounded(numbers: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers with the same sum: rounded down, and the largest remainders up."""
    down = {name: int(number + _SLACK) for name, number in numbers.items()}
    missing = int(sum(numbers.values()) + _SLACK) - sum(down.values())
    upwards = sorted(numbers, key=lambda name: (down[name] - numbers[name], name))[:missing]
    return {name: count + (name in upwards) for name, count in down.items()}


def allocate_by_kind(
    there: Mapping[str, int], shares: Mapping[Any, float] | None, examples: int | None
) -> dict[str, int]:
    """Examples of each kind: by the shares, as many as `examples` allow, or else as the scarcest kind allows.

    Args:
        there: Examples that there are of each kind.
        shares: Part of each kind; a kind without one gets none. None takes all of each.
        examples: Wanted together.
    """
    if shares is None:
        return allocate(examples or sum(there.values()), there, {kind: max(count, 1) for kind, count in there.items()})
    within = {kind: count for kind, count in there.items() if kind in shares}
    scarcest = min((within.get(kind, 0) / share for kind, share in shares.items()), default=0.0)
    unit = scarcest if examples is None else min(scarcest, examples / sum(shares.values()))
    return {kind: int(shares[kind] * unit + _SLACK) if kind in shares else 0 for kind in there}
