"""Locks between processes, of the operating system: the kernel frees them when their holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def try_lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Yields whether this process has the lock, which no other process has during the block.

    The file stays: to remove it would take it from a process that has just opened it.

    Args:
        path: The lock file.
        wait: Whether to wait until its holder is done, instead of giving up at once.
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
