"""MLflow takes a limited number of params, tags or metrics in one call; what is logged is cut into such batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

MAX_PARAMS = 100
"""The most params or tags that ``log_batch`` takes."""
MAX_METRICS = 1000
"""The most metrics that ``log_batch`` takes."""
T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items, the last one shorter; `itertools.batched` of Python 3.12."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
