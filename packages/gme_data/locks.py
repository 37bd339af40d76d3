"""One piece of work, one process: locks of the operating system, which the kernel frees when their holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def taken(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether what the lock file stands for is this process' to do; it is nobody else's meanwhile.

    The file stays: who removed it could take it from under a process that has just opened it.

    Args:
        path: The lock file.
        wait: Wait until whoever has it is done, instead of giving up at once.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
