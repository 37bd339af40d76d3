"""Choices that depend on a seed and a name alone: the same on every machine, and stable when the world grows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def rank(seed: int, *names: str) -> int:
    """A uniform 64-bit number for `names` under `seed`."""
    text = "\x1f".join((str(seed), *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def pick(options: Sequence[T], seed: int, *names: str) -> T:
    """One of `options`, uniformly."""
    return options[rank(seed, *names) % len(options)]


def sample(items: Iterable[T], limit: int, seed: int, name: Callable[[T], str]) -> list[T]:
    """At most `limit` of `items`, in the order of their ranks."""
    return sorted(items, key=lambda item: rank(seed, name(item)))[:limit]
