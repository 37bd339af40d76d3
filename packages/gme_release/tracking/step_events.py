"""The events of a step as points of curves: read while they are written, or read again from the start.

Both give the same points for the same lines, so that points which are sent twice are in MLflow once. A line that is
torn or damaged is skipped. Knows no outbox and no tracker.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gme_data.structured import StructureError, open_regular, parse_json

_METRICS_BY_SOURCE = ("loss", "accuracy")
"""Fields of a training event that become a metric for each data source too."""
_SOURCE = re.compile(r"[\w.\- :/]{1,200}")
"""What MLflow takes in the name of a metric; it would refuse the whole batch of one that it does not take."""
_METRIC_NAMES = {
    "loss": "loss/all",
    "accuracy": "accuracy/all",
    "similarity": "similarity/positives",
    "negative_similarity": "similarity/negatives",
    "temperature": "optimizer/temperature",
    "gradient_norm": "optimizer/gradient_norm",
    "text_rate": "optimizer/rate_language",
    "vision_rate": "optimizer/rate_vision",
    "pairs_per_second": "speed/pairs_per_second",
    "tokens_per_second": "speed/tokens_per_second",
    "computed_to_real": "speed/computed_to_real",
    "peak_memory": "speed/peak_memory_bytes",
}
"""Field of a training event -> metric; MLflow's page groups metrics by what stands before the slash."""


class Event(BaseModel):
    """A line of ``events.jsonl``; the measurements of a training step are further fields."""

    model_config = ConfigDict(frozen=True, extra="allow")

    time: float = Field(ge=0, lt=1e12)
    """Seconds since the epoch."""
    kind: str
    """``step`` for a training step."""
    step: int | None = Field(None, ge=0)
    """Number of the training step."""


@dataclass(slots=True)
class StepEvents:
    """The events of a step, and how far they were read.

    Attributes:
        run: Name of the step's run.
        path: File of the events.
        offset: How many bytes were read.
        step: The last training step that was read.
    """

    run: str
    path: Path
    offset: int
    step: int = -1

    def read(self, end: int | None = None) -> list[list[Any]]:
        """Returns the points of the new whole lines, up to byte `end`.

        Training steps that a resumed training repeats are left out.
        """
        points: list[list[Any]] = []
        for line in self._lines(end):
            self.offset += len(line)
            event = _parse_event(line, str(self.path))
            if event is not None and event.kind == "step" and event.step is not None and event.step > self.step:
                self.step = event.step
                points += event_points(event.model_dump())
        return points

    def _lines(self, end: int | None) -> Iterator[bytes]:
        try:
            handle = open_regular(self.path)
        except (FileNotFoundError, StructureError):  # most steps write no events
            return
        with os.fdopen(handle, "rb") as lines:
            size = os.fstat(lines.fileno()).st_size
            lines.seek(min(self.offset, size))  # the file may have been replaced by a shorter one
            data = lines.read(-1 if end is None else max(end - self.offset, 0))
        yield from (line + b"\n" for line in data.split(b"\n")[:-1])


def events_path(workspace: Path, step: str) -> Path:
    """Returns the file to which a step appends its events."""
    return workspace / "runs" / "steps" / step / "events.jsonl"


def file_size(path: Path) -> int:
    """Returns the size of a file in bytes; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _parse_event(line: bytes, where: str) -> Event | None:
    try:
        return parse_json(line, Event, where=where)
    except StructureError:
        return None


def event_points(event: Mapping[str, Any]) -> list[list[Any]]:
    """Returns ``[metric, value, time in ms, step]`` for each metric of a training event; equal events, equal points."""
    time_ms, step = int(float(event["time"]) * 1000), int(event["step"])
    metrics = {name: event[field] for field, name in _METRIC_NAMES.items() if field in event}
    if _SOURCE.fullmatch(str(event.get("source") or "")):
        metrics.update({f"{field}/{event['source']}": event[field] for field in _METRICS_BY_SOURCE if field in event})
    return [[name, float(value), time_ms, step] for name, value in metrics.items() if _is_finite(value)]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
