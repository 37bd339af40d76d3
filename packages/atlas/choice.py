"""Pseudo-random choices that depend on a seed and on names alone.

They are the same on every machine, and adding an entity to the world changes no choice that was made for another one.
A random generator would not do: each draw would depend on how many came before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def seeded_hash(seed: int, *names: str) -> int:
    """Returns a uniform 64-bit number for `names` under `seed`."""
    text = "\x1f".join((str(seed), *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def seeded_choice(options: Sequence[T], seed: int, *names: str) -> T:
    """Returns one of `options`, uniformly."""
    return options[seeded_hash(seed, *names) % len(options)]


def seeded_sample(items: Iterable[T], limit: int, seed: int, name: Callable[[T], str]) -> list[T]:
    """Returns at most `limit` of `items`, in the order of the hashes of their names."""
    return sorted(items, key=lambda item: seeded_hash(seed, name(item)))[:limit]
