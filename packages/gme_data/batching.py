"""`itertools.batched` of Python 3.12, for 3.11."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items, the last one shorter; `items` are read a batch at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
