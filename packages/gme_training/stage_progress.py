"""Following the events that rank 0 of a stage writes, to show how far it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gme_data.progress import Progress, tell
from gme_data.structured import StructureError, parse_json

POLL_SECONDS = 0.2
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of an event; other fields are for other readers."""

    kind: str
    step: int = 0
    phase: str = ""
    source: str = ""
    loss: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """Where rank 0 reports and what is shown of it: `total` steps, `events` file, label of the progress."""

    label: str
    total: int
    events: Path


class Follower:
    """Shows what is written to a file of events from now on."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._position = watch.events.stat().st_size if watch.events.exists() else 0
        self._progress: Progress | None = None
        self._unreadable = 0

    def look(self) -> None:
        """Show what is new."""
        for line in self._fresh_lines():
            try:
                self._show(parse_json(line, Shown, where=str(self._watch.events)))
            except StructureError as error:
                self._unreadable += 1
                log.debug("passed over: %s", error)

    def close(self) -> None:
        """Show the last of it."""
        self.look()
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
        if self._unreadable:
            tell(self._watch.label, f"{self._unreadable} damaged line(s) of {self._watch.events} were passed over")

    def _show(self, event: Shown) -> None:
        if event.kind == "warning":
            tell(self._watch.label, event.text)
        elif event.kind == "start":
            self._progress = Progress(self._watch.label, self._watch.total, "steps", done=event.step)
            self._progress.__enter__()
        elif event.kind == "step" and self._progress is not None:
            self._progress.advance(1, f"{event.phase} · {event.source} · loss {event.loss:.3f}")

    def _fresh_lines(self) -> list[bytes]:
        """Whole lines since the last look."""
        if not self._watch.events.exists():
            return []
        with self._watch.events.open("rb") as handle:
            handle.seek(self._position)
            whole, end, _ = handle.read().rpartition(b"\n")
        self._position += len(whole) + len(end)
        return [line for line in whole.split(b"\n") if line.strip()]


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Show the progress of ranks that this process did not start."""
    done, follower = threading.Event(), Follower(watch)

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            follower.look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        follower.close()
