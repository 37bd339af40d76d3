"""The events of a step as points of curves: read as they are written, or once more from where they began.

Both ways give the same points for the same lines, so that what is told twice is there once. A line that is torn or
damaged is passed over. Knows no outbox and no tracker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gme_data.structured import StructureError, open_regular, parse_json
from gme_release.records import event_points


class Event(BaseModel):
    """A line of ``events.jsonl``; what a training step measured is among its further fields."""

    model_config = ConfigDict(frozen=True, extra="allow")

    time: float = Field(ge=0, lt=1e12)
    """Seconds since the epoch."""
    kind: str
    """``step`` for a training step."""
    step: int | None = Field(None, ge=0)
    """Its number."""


@dataclass(slots=True)
class StepEvents:
    """How far the events of a step were read.

    Attributes:
        run: What the step's run is called.
        path: Its events.
        offset: How many bytes were read.
        step: The last training step that was told.
    """

    run: str
    path: Path
    offset: int
    step: int = -1

    def read(self, end: int | None = None) -> list[list[Any]]:
        """Points of the new whole lines, up to `end` bytes; steps that a resumed training does again are left out."""
        points: list[list[Any]] = []
        for line in self._lines(end):
            self.offset += len(line)
            event = _event(line, str(self.path))
            if event is not None and event.kind == "step" and event.step is not None and event.step > self.step:
                self.step = event.step
                points += event_points(event.model_dump())
        return points

    def _lines(self, end: int | None) -> Iterator[bytes]:
        try:
            handle = open_regular(self.path)
        except (FileNotFoundError, StructureError):  # a step that tells nothing
            return
        with os.fdopen(handle, "rb") as lines:
            size = os.fstat(lines.fileno()).st_size
            lines.seek(min(self.offset, size))
            data = lines.read(-1 if end is None else max(end - self.offset, 0))
        yield from (line + b"\n" for line in data.split(b"\n")[:-1])


def events_of(workspace: Path, step: str) -> Path:
    """Where a step appends its events."""
    return workspace / "runs" / "steps" / step / "events.jsonl"


def size_of(path: Path) -> int:
    """Bytes of the events that are there."""
    return path.stat().st_size if path.is_file() else 0


def _event(line: bytes, where: str) -> Event | None:
    try:
        return parse_json(line, Event, where=where)
    except StructureError:
        return None
