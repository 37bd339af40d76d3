"""Messages of an outbox that lost some of them: those that can be read, and what other files say.

A run whose start was lost gets another one, and the curves of a step are read again from the step's own events. Sending
all of them again changes nothing that was sent before. Writes nothing; knows no tracker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gme_release.tracking.messages import Message, MetricPoints, RunArtifact, RunEnd, RunStart, RunTags
from gme_release.tracking.step_events import StepEvents, events_path
from gme_release.tracking.tags import WORKSPACE, workspace_tag

_SEPARATOR = "/"
"""Stands between pipeline run and step run in a name."""


def recover_messages(messages: Iterable[Message], workspace: Path) -> list[Message]:
    """Returns all that can be sent of the runs in `messages`: parents before their steps, each run in order."""
    runs: dict[str, list[Message]] = {}
    for message in messages:
        runs.setdefault(message.run.partition(_SEPARATOR)[0], [])
        runs.setdefault(message.run, []).append(message)
    times = (_time_ms(message) for of_run in runs.values() for message in of_run)
    first_time = min((time for time in times if time is not None), default=0)
    # False sorts before True: a pipeline's run has no separator in its name.
    names = sorted(runs, key=lambda name: _SEPARATOR in name)
    return [message for name in names for message in _messages_of_run(name, runs[name], workspace, first_time)]


def _messages_of_run(run: str, messages: Sequence[Message], workspace: Path, start_time: int) -> Iterator[Message]:
    starts = [message for message in messages if isinstance(message, RunStart)]
    if not starts:
        tags = {WORKSPACE: workspace_tag(workspace)}
        yield RunStart(run=run, name=run.rpartition(_SEPARATOR)[2], tags=tags, params={}, time=start_time)
    yield from starts
    points = _points_from_events(run, messages, workspace)
    if points is not None:
        yield points
    yield from (message for message in messages if not isinstance(message, RunStart))


def _points_from_events(run: str, messages: Sequence[Message], workspace: Path) -> MetricPoints | None:
    """Returns the points of a step's run, read from its events; None where no message says at which offset it began."""
    starts = [m.start for m in messages if isinstance(m, RunStart | MetricPoints) and m.start is not None]
    ends = [m.offset for m in messages if isinstance(m, MetricPoints | RunEnd) and m.offset is not None]
    if not starts:
        return None
    step = run.rpartition(_SEPARATOR)[2].rpartition("-")[0]
    # A step appends to one file of events in all its runs: what lies behind the end of this run may be of the next one.
    end = max(ends, default=min(starts)) if isinstance(messages[-1], RunEnd) else None
    points = StepEvents(run, events_path(workspace, step), min(starts)).read(end)
    return MetricPoints.model_validate({"run": run, "points": points})


def _time_ms(message: Message) -> int | None:
    match message:
        case RunStart() | RunEnd():
            return message.time
        case MetricPoints():
            return min((time for _, _, time, _ in message.points), default=None)
        case RunTags() | RunArtifact():
            return None
