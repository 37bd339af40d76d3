"""What is known of the runs of an outbox that lost messages: those that can be read, and what other records still say.

A run whose beginning was lost begins anew, and the curves of a step are read once more from the step's own events.
Told as a whole it says nothing twice. Reads; writes nothing; knows no tracker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gme_release.messages import Begin, End, File, Message, Metrics, Tags
from gme_release.records import WORKSPACE, workspace_tag
from gme_release.step_events import StepEvents, events_of

_OF = "/"


def complete(messages: Iterable[Message], workspace: Path) -> list[Message]:
    """All that can be told of these runs, parents before their steps, each run in order."""
    runs: dict[str, list[Message]] = {}
    for message in messages:
        runs.setdefault(message.run.partition(_OF)[0], [])
        runs.setdefault(message.run, []).append(message)
    time = min((moment for own in runs.values() for moment in map(_time, own) if moment is not None), default=0)
    ordered = sorted(runs, key=lambda run: _OF in run)
    return [message for run in ordered for message in _of_run(run, runs[run], workspace, time)]


def _of_run(run: str, own: Sequence[Message], workspace: Path, time: int) -> Iterator[Message]:
    begins = [message for message in own if isinstance(message, Begin)]
    if not begins:
        tags = {WORKSPACE: workspace_tag(workspace)}
        yield Begin(run=run, name=run.rpartition(_OF)[2], tags=tags, params={}, time=time)
    yield from begins
    points = _points(run, own, workspace)
    if points is not None:
        yield points
    yield from (message for message in own if not isinstance(message, Begin))


def _points(run: str, own: Sequence[Message], workspace: Path) -> Metrics | None:
    """The points of a step's run, from its events; None where nothing says which of them are its own."""
    starts = [message.start for message in own if isinstance(message, Begin | Metrics) and message.start is not None]
    ends = [message.offset for message in own if isinstance(message, Metrics | End) and message.offset is not None]
    if not starts:
        return None
    step = run.rpartition(_OF)[2].rpartition("-")[0]
    # What lies behind the end of a run that is over may be the next one's.
    end = max(ends, default=min(starts)) if isinstance(own[-1], End) else None
    points = StepEvents(run, events_of(workspace, step), min(starts)).read(end)
    return Metrics.model_validate({"run": run, "points": points})


def _time(message: Message) -> int | None:
    match message:
        case Begin() | End():
            return message.time
        case Metrics():
            return min((point[2] for point in message.points), default=None)
        case Tags() | File():
            return None
