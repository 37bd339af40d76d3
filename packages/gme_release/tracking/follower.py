"""Follows a pipeline run while it works and mirrors it to MLflow: one run, and inside it a run for each step.

Two threads work: one reads the steps' ``events.jsonl`` and measures the machine into an outbox on disk, the other sends
the outbox to the tracker. If the tracker does not answer, the work goes on and the outbox waits for this run or the
next; `Follower.flush` waits for the tracker before a model is registered. Messages that a full disk does not take wait
in memory. Knows no orchestrator, and nothing of what a step does.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gme_data.errors import FoundryError
from gme_release.partial_files import remove_partial_files
from gme_release.tracking.messages import Message, MetricPoints, RunArtifact, RunEnd, RunStart, RunTags
from gme_release.tracking.outbox import Outbox, OutboxHeader, outboxes
from gme_release.tracking.process_tree import ProcessTree
from gme_release.tracking.run_metrics import flat_params
from gme_release.tracking.sender import Sender, require_sent
from gme_release.tracking.step_events import StepEvents, events_path, file_size
from gme_release.tracking.tags import WORKSPACE, workspace_tag

HOME = Path("runs/tracking")
"""Folder of the outboxes, below the workspace."""
_POLL_SECONDS = 1.0
_MEASURE_SECONDS = 5.0
_RETRY_SECONDS = 3.0
_JOIN_SECONDS = 20.0
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What is known of a pipeline run before it works.

    Attributes:
        key: Digest of the configuration; a killed run and its rerun have the same.
        name: Name for people.
        experiment: MLflow experiment.
        config: Resolved configuration of the whole pipeline.
        tags: Tags that say where it runs, on which code.
    """

    key: str
    name: str
    experiment: str
    config: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)


class Follower:
    """Follows one pipeline run. Nothing is sent before a step begins: a run whose steps are all done leaves no trace.

    Args:
        workspace: The workspace of the steps.
        description: The run.
    """

    def __init__(self, workspace: Path, description: RunDescription) -> None:
        self._workspace, self._description = workspace, description
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._outbox: Outbox | None = None
        self._others: list[Outbox] = []
        self._senders: list[Sender] = []
        self._events: dict[str, StepEvents] = {}
        self._unwritten: list[Message] = []
        self._warned = False
        self.name = ""
        """The run's name in its tag; empty before the first step begins."""

    def begin_step(self, step: str, title: str, key: str, config: Mapping[str, Any]) -> None:
        """Opens the run of a step that is about to work.

        Args:
            step: Name of the step's log folder.
            title: Name of the run for people.
            key: The step key.
            config: The step's configuration.
        """
        with self._lock:
            outbox = self._outbox or self._open()
            run = f"{self.name}/{step}-{key[:8]}"
            path = events_path(self._workspace, step)
            events = _resume_events(outbox, run, path)
            start = file_size(path) if events is None else None
            # The file has the events of earlier runs too. Those of this one begin where a killed run was read to, else
            # at the end of the file.
            self._events[step] = events or StepEvents(run, path, start or 0)
            tags = {"gme.step": step, "gme.step_key": key, WORKSPACE: workspace_tag(self._workspace)}
            self._write(
                RunStart(run=run, name=title, tags=tags, params=flat_params(config), time=_now_ms(), start=start)
            )

    def end_step(
        self, step: str, status: str, *, counts: Mapping[str, float] | None = None, files: Iterable[Path] = ()
    ) -> None:
        """Closes the run of a step.

        Args:
            step: Name of the step's log folder.
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            counts: The counts of its manifest, which become metrics.
            files: Plots and tables for people; missing ones are left out.
        """
        with self._lock:
            events = self._events.pop(step)
            self._read_events(events, last=True)
            now = _now_ms()
            numbers = {name: float(value) for name, value in (counts or {}).items() if math.isfinite(value)}
            if numbers:
                points = [(f"counts/{name}", value, now, 0) for name, value in numbers.items()]
                self._write(MetricPoints(run=events.run, points=tuple(points)))
            for path in files:
                self._store_file(path, step, events.run)
            self._write(_run_end(events.run, status, events.offset))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run, if it has begun."""
        with self._lock:
            if self._outbox:
                self._write(RunTags(run=self.name, tags=dict(tags)))

    def close(self, status: str | None) -> None:
        """Stops following.

        Args:
            status: How the run ended; None if the registration has ended it.
        """
        with self._lock:
            for step in list(self._events):
                self.end_step(step, status or "FAILED")
            if self._outbox:
                # The end of a run may have been lost on a full disk. The registration ends the pipeline's run itself.
                close_open_runs(self._outbox, but=() if status else (self.name,), status=status or "KILLED")
        was_flushed = not self._threads
        self._stop_threads()
        if was_flushed:  # its threads ended before the last messages were written
            all(sender.send() for sender in self._senders)
        with self._lock:
            if self._unwritten:
                _LOGGER.warning("%d messages for the tracker could not be noted and are lost.", len(self._unwritten))
            # The outbox of a run that failed stays: its rerun reads there how far the run came.
            for outbox in [*self._others, *([self._outbox] if self._outbox and status is None else [])]:
                if not outbox.pending_count:
                    outbox.remove()
            self._outbox, self._others = None, []

    def flush(self) -> None:
        """Waits until the tracker has every message; afterwards nothing more is followed.

        Raises:
            TrackerError: The tracker does not answer.
            FoundryError: A full disk has not taken every message.
        """
        with self._lock:
            if not self._write_unwritten():
                raise FoundryError(
                    f"What the run did can't be noted in {self.name}: the disk takes no more.",
                    hint="Free some space and run the same command again; finished work is kept.",
                    exit_code=1,
                )
        self._stop_threads()
        require_sent(self._workspace, self._senders)

    def _stop_threads(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self._threads = []

    def _open(self) -> Outbox:
        """Returns the outbox that this run had when it was killed, else a new one; the runs of others are closed."""
        remove_partial_files(self._workspace)
        resumed = None
        for outbox in outboxes(self._workspace / HOME):
            header = outbox.header
            if header is None and not any(outbox.messages()) and not outbox.damaged_count:
                outbox.remove()
                continue
            is_same_run = header is not None and header.key == self._description.key and not _is_finished(outbox)
            # Nobody works at these runs now. Steps that go on are opened again; those that are done would never end.
            close_open_runs(outbox, but=(outbox.folder.name,) if is_same_run else ())
            if is_same_run:
                resumed = outbox
            else:
                self._others.append(outbox)
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        outbox = resumed or Outbox(self._workspace / HOME / name)
        self._outbox, self.name = outbox, outbox.folder.name
        self._start_run(outbox)
        self._senders = [Sender(self._workspace, other, self._description.experiment) for other in self._others]
        self._senders.append(Sender(self._workspace, outbox, self._description.experiment, close_dead=True))
        for work in (self._watch, self._send):
            # Daemons: a thread that hangs in a request to the tracker must not keep the process alive.
            thread = threading.Thread(target=work, name=f"follower{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return outbox

    def _start_run(self, outbox: Outbox) -> None:
        description = self._description
        try:
            outbox.write_header(OutboxHeader(key=description.key, experiment=description.experiment))
        except OSError as error:  # the first message has the same content
            _LOGGER.warning("Whose messages wait in %s can't be noted: %s", outbox.folder, error)
        self._write(
            RunStart(
                run=self.name,
                key=description.key,
                experiment=description.experiment,
                name=description.name,
                tags={**description.tags, WORKSPACE: workspace_tag(self._workspace)},
                params=flat_params(description.config),
                time=_now_ms(),
            )
        )

    def _watch(self) -> None:
        tree, measured = ProcessTree(self._workspace), time.monotonic()
        started = measured
        while not self._stop.wait(_POLL_SECONDS):
            with self._lock:
                for events in self._events.values():
                    self._read_events(events)
                # Not on a full disk, where measurements would pile up in memory.
                if time.monotonic() - measured >= _MEASURE_SECONDS and self._write_unwritten():
                    measured, now = time.monotonic(), _now_ms()
                    seconds = int(measured - started)
                    points = tuple((name, float(value), now, seconds) for name, value in tree.measure().items())
                    self._write(MetricPoints(run=self.name, points=points))

    def _read_events(self, events: StepEvents, *, last: bool = False) -> None:
        """Writes the new points of a step; while the disk is full they stay unread, except for the `last` ones."""
        if not last and not self._write_unwritten():
            return
        start = events.offset
        points = events.read()
        if events.offset > start:
            fields = {"points": points, "start": start, "offset": events.offset, "step": events.step}
            self._write(MetricPoints.model_validate({"run": events.run, **fields}))

    def _store_file(self, path: Path, step: str, run: str) -> None:
        if not path.is_file() or self._outbox is None:
            return
        try:
            stored = self._outbox.store_file(path, f"{step}/{path.name}")
        except OSError as error:
            _LOGGER.warning("%s can't be kept for the tracker: %s", path, error)
        else:
            self._write(RunArtifact(run=run, path=stored, to="plots" if path.suffix in (".svg", ".png") else ""))

    def _write(self, message: Message) -> None:
        """Writes a message. If the disk does not take it the work goes on, and the message is written later."""
        with self._lock:
            if self._outbox is not None:
                self._unwritten.append(message)
                self._write_unwritten()

    def _write_unwritten(self) -> bool:
        """Writes the messages that wait in memory; returns whether the disk took all of them."""
        while self._unwritten and self._outbox is not None:
            try:
                self._outbox.append(self._unwritten[0])
            except OSError as error:
                if not self._warned:
                    _LOGGER.warning("What the run does can't be noted in %s now: %s", self._outbox.folder, error)
                self._warned = True
                return False
            del self._unwritten[0]
        self._warned = False
        return True

    def _send(self) -> None:
        while True:
            stopping = self._stop.is_set()
            # In order, and none after one that failed: all have the same tracker.
            answered = all(sender.send() for sender in self._senders)
            if stopping:
                return
            self._stop.wait(_POLL_SECONDS if answered else _RETRY_SECONDS)


def flush_outboxes(workspace: Path) -> None:
    """Sends the messages of the workspace's earlier runs that the tracker does not have yet.

    Raises:
        TrackerError: The tracker does not answer.
    """
    senders = [Sender(workspace, outbox) for outbox in outboxes(workspace / HOME) if any(outbox.messages())]
    require_sent(workspace, senders)


def close_open_runs(outbox: Outbox, *, but: Iterable[str] = (), status: str = "KILLED") -> None:
    """Appends an end with `status` for each run of an outbox that has none, except those named in `but`."""
    last = {message.run: message for message in outbox.messages() if isinstance(message, RunStart | RunEnd)}
    runs = {name for message in outbox.messages() for name in (message.run, message.run.partition("/")[0])}
    for run in sorted(runs - set(but), key=lambda name: "/" not in name):
        if not isinstance(last.get(run), RunEnd):
            try:
                outbox.append(_run_end(run, status))
            except OSError as error:  # the workspace's next run closes it
                _LOGGER.warning("The end of %s can't be noted: %s", run, error)


def _resume_events(outbox: Outbox, run: str, path: Path) -> StepEvents | None:
    """Returns the events of a step's run from where an earlier process had read them; None if none followed it."""
    messages = [message for message in outbox.messages() if message.run == run]
    starts = [m.start for m in messages if isinstance(m, RunStart | MetricPoints) and m.start is not None]
    if not starts:
        return None
    offsets = [m.offset for m in messages if isinstance(m, MetricPoints) and m.offset is not None]
    steps = [m.step for m in messages if isinstance(m, MetricPoints) and m.step is not None]
    return StepEvents(run, path, max(offsets, default=min(starts)), max(steps, default=-1))


def _is_finished(outbox: Outbox) -> bool:
    return any(
        isinstance(message, RunEnd) and message.run == outbox.folder.name and message.status == "FINISHED"
        for message in outbox.messages()
    )


def _run_end(run: str, status: str, offset: int | None = None) -> RunEnd:
    return RunEnd.model_validate({"run": run, "status": status, "time": _now_ms(), "offset": offset})


def _now_ms() -> int:
    return int(time.time() * 1000)
