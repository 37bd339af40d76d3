"""What processes that share a run agree on, by files and locks in the folder of its results.

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
def joined(folder: Path) -> Iterator[float]:
    """Join the processes that are at work in a folder; if there are none, begin.

    Yields:
        When the first of them began, as the file system dates files: clocks of several machines may differ.
    """
    began = folder / ".began"
    with ExitStack() as membership:
        with try_lock(folder / ".join.lock", wait=True):
            members = sorted(folder.glob(".member-*.lock"))
            with ExitStack() as probes:
                free = [path for path in members if probes.enter_context(try_lock(path))]
            if len(free) == len(members):
                began.touch()
            membership.enter_context(try_lock(free[0] if free else folder / f".member-{len(members)}.lock"))
        yield began.stat().st_mtime


class Tally:
    """A number that the first process to come to a piece of work writes down, for whichever will finish it.

    Args:
        path: Where it is kept until then. It outlives a process that is killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def first(self, count: Callable[[], int]) -> int:
        """What `count` gave to the first who asked."""
        with try_lock(self._path.with_name(f"{self._path.name}.lock"), wait=True):
            if not self._path.exists():
                atomic_write(self._path, str(count()).encode())
            return read_json(self._path, int, hint=f"Delete {self._path}.")

    def forget(self) -> None:
        """The work is done."""
        self._path.unlink(missing_ok=True)
