"""Coordinates processes that share a run, by files and locks in the folder of its results.

Knows folders and numbers; neither models nor tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gme_data.journal import atomic_write
from gme_data.locks import try_lock
from gme_data.structured import read_json


@contextmanager
def shared_run(folder: Path) -> Iterator[float]:
    """Take part in the run of a folder: join the processes that are at work in it, or begin a run if there are none.

    Yields:
        The time at which the run began, as the file system dates files: clocks of several machines may differ.
    """
    began = folder / ".began"
    with ExitStack() as membership:
        # One process at a time counts the members, or two that arrive together would both begin.
        with try_lock(folder / ".join.lock", wait=True):
            members = sorted(folder.glob(".member-*.lock"))
            # The system frees the lock of a process that died, so files alone don't say who is still at work.
            with ExitStack() as probes:
                free = [path for path in members if probes.enter_context(try_lock(path))]
            if len(free) == len(members):
                began.touch()
            membership.enter_context(try_lock(free[0] if free else folder / f".member-{len(members)}.lock"))
        yield began.stat().st_mtime


class FirstWriterCounter:
    """A number that the first process to come to a piece of work writes down, for whichever process will finish it.

    Args:
        path: The file that holds the number until then. It outlives a process that is killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def first(self, count: Callable[[], int]) -> int:
        """Return what `count` gave to the first process that asked; only that process calls it."""
        with try_lock(self._path.with_name(f"{self._path.name}.lock"), wait=True):
            if not self._path.exists():
                atomic_write(self._path, str(count()).encode())
            return read_json(self._path, int, hint=f"Delete {self._path}.")

    def forget(self) -> None:
        """Delete the number, since the work is done."""
        self._path.unlink(missing_ok=True)
