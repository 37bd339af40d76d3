"""A map in threads that runs a few jobs ahead, so that pictures are decoded while the model computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MAX_THREADS = 8


def map_ahead(fn: Callable[[T], R], jobs: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """Yields ``fn(job)`` for each job, in order; at most one job a thread waits beyond those that run.

    Threads are enough, since Pillow decodes and resizes without holding Python's lock. By default there is one for each
    core, up to 8.
    """
    threads = threads or min(_MAX_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(fn, job))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # after an error, or when the caller stops early
                future.cancel()
