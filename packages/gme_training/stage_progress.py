"""The progress bar of a stage, from the events that rank 0 writes."""

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
"""Seconds between two looks at the file of events."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """The fields of an event that are displayed; the other fields are for other readers."""

    kind: str
    step: int = 0
    phase: str = ""
    source: str = ""
    loss: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class ProgressSource:
    """Where the progress of a stage is read from.

    Attributes:
        label: The label of the progress bar.
        total: The number of steps.
        events: The file to which rank 0 appends its events.
    """

    label: str
    total: int
    events: Path


class StageProgress:
    """Displays the events that are appended to a file from now on.

    Args:
        source: The file and the number of steps.
    """

    def __init__(self, source: ProgressSource) -> None:
        self._source = source
        # Events of earlier attempts of the stage are in the file already.
        self._offset = source.events.stat().st_size if source.events.exists() else 0
        self._progress: Progress | None = None
        self._damaged_lines = 0

    def update(self) -> None:
        """Displays the events since the last update."""
        for line in self._new_lines():
            try:
                self._display(parse_json(line, ProgressEvent, where=str(self._source.events)))
            except StructureError as error:
                self._damaged_lines += 1
                log.debug("passed over: %s", error)

    def close(self) -> None:
        """Displays the last events and ends the progress bar."""
        self.update()
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
        if self._damaged_lines:
            tell(self._source.label, f"{self._damaged_lines} damaged line(s) of {self._source.events} were passed over")

    def _display(self, event: ProgressEvent) -> None:
        if event.kind == "warning":
            tell(self._source.label, event.text)
        elif event.kind == "start":
            self._progress = Progress(self._source.label, self._source.total, "steps", done=event.step)
            self._progress.__enter__()
        elif event.kind == "step" and self._progress is not None:
            self._progress.advance(1, f"{event.phase} · {event.source} · loss {event.loss:.3f}")

    def _new_lines(self) -> list[bytes]:
        """Returns the complete lines since the last update; a line may be read while it is written."""
        if not self._source.events.exists():
            return []
        with self._source.events.open("rb") as handle:
            handle.seek(self._offset)
            complete, end, _ = handle.read().rpartition(b"\n")
        self._offset += len(complete) + len(end)
        return [line for line in complete.split(b"\n") if line.strip()]


@contextmanager
def background_progress(source: ProgressSource) -> Iterator[None]:
    """Displays the progress from a thread, while this process is itself one of the ranks."""
    done, progress = threading.Event(), StageProgress(source)

    def poll() -> None:
        while not done.wait(POLL_SECONDS):
            progress.update()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        progress.close()
