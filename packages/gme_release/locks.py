"""Locks of the operating system: the kernel frees them when their holder dies, so no run waits for a dead process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gme_data.errors import FoundryError


@contextmanager
def writer_lock(workspace: Path, name: str, timeout: float = 600.0) -> Iterator[None]:
    """Holds the lock `name` (``dvc`` or ``registry``) of a workspace; waits for it up to `timeout` seconds.

    Raises:
        FoundryError: Another process held the lock for longer.
    """
    path = workspace / "runs" / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout as error:
        raise FoundryError(
            f"Another process has held {path} for {timeout:.0f} s.", hint="Wait for it, or stop it."
        ) from error
    try:
        yield
    finally:
        lock.release()
