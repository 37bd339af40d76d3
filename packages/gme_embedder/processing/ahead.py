"""Work done a few steps ahead in threads, its results in order: keeps a model fed while pictures are decoded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 8


def ahead(work: Callable[[T], R], jobs: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """`work` on each of `jobs`, in their order, at most one job for each thread waiting beyond those at work.

    Pillow decodes and resizes outside of Python's lock, so threads are enough. None takes one for each core, up to 8.
    """
    threads = threads or min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # after an error, don't do what nobody will ask for
                future.cancel()
