"""Follows a pipeline run while it works and mirrors it to MLflow: one run, in it a run for each step.

Two threads: one reads the steps' ``events.jsonl`` and measures the machine into an outbox on disk, one tells the
tracker. If the tracker does not answer the work goes on and the outbox waits, for this run or the next; `settle` waits
for it before a model is registered. What a full disk does not take waits in memory. Knows no orchestrator, and nothing
of what a step does.
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
from gme_release.leftovers import sweep
from gme_release.messages import Begin, End, File, Message, Metrics, Tags
from gme_release.outbox import Header, Outbox, outboxes
from gme_release.process_tree import ProcessTree
from gme_release.records import WORKSPACE, flat_params, workspace_tag
from gme_release.replay import Sender, require_sent
from gme_release.step_events import StepEvents, events_of, size_of

HOME = Path("runs/tracking")
_LOOK_SECONDS = 1.0
_MEASURE_SECONDS = 5.0
_RETRY_SECONDS = 3.0
_END_SECONDS = 20.0
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is known of a pipeline run before its work.

    Attributes:
        key: Digest of what was asked for; a killed run and its rerun have the same.
        name: For people.
        experiment: MLflow experiment.
        config: Resolved configuration of the whole pipeline.
        tags: Where it runs, on which code.
    """

    key: str
    name: str
    experiment: str
    config: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)


class Follower:
    """One pipeline run. Nothing is told before the first step begins, so a run that finds all done leaves no trace.

    Args:
        workspace: Where the steps work.
        plan: What is asked for.
    """

    def __init__(self, workspace: Path, plan: RunPlan) -> None:
        self._workspace, self._plan = workspace, plan
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
        """What the run is called in its tag; empty as long as there is none."""

    def begin_step(self, step: str, title: str, key: str, config: Mapping[str, Any]) -> None:
        """A step is about to work.

        Args:
            step: Its name, which is its log folder's.
            title: For people.
            key: Its step key.
            config: Its configuration.
        """
        with self._lock:
            outbox = self._outbox or self._open()
            run = f"{self.name}/{step}-{key[:8]}"
            path = events_of(self._workspace, step)
            events = _where_it_was(outbox, run, path)
            start = size_of(path) if events is None else None
            # Where a killed run was followed to, else only what is written from now on.
            self._events[step] = events or StepEvents(run, path, start or 0)
            tags = {"gme.step": step, "gme.step_key": key, WORKSPACE: workspace_tag(self._workspace)}
            self._put(Begin(run=run, name=title, tags=tags, params=flat_params(config), time=_now(), start=start))

    def end_step(
        self, step: str, status: str, *, counts: Mapping[str, float] | None = None, files: Iterable[Path] = ()
    ) -> None:
        """A step has worked.

        Args:
            step: Its name.
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            counts: What it counted; become metrics.
            files: Plots and tables that people look at; missing ones are left out.
        """
        with self._lock:
            events = self._events.pop(step)
            self._read(events, last=True)
            now = _now()
            numbers = {name: float(value) for name, value in (counts or {}).items() if math.isfinite(value)}
            if numbers:
                points = [(f"counts/{name}", value, now, 0) for name, value in numbers.items()]
                self._put(Metrics(run=events.run, points=tuple(points)))
            for path in files:
                self._keep(path, step, events.run)
            self._put(_end(events.run, status, events.offset))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Say something about the run, if there is one."""
        with self._lock:
            if self._outbox:
                self._put(Tags(run=self.name, tags=dict(tags)))

    def close(self, status: str | None) -> None:
        """Stop following.

        Args:
            status: How the run ended; None if the registration has ended it.
        """
        with self._lock:
            for step in list(self._events):
                self.end_step(step, status or "FAILED")
            if self._outbox:
                # Runs whose end was lost on the way to the disk; the registration has ended the pipeline's own.
                close_open_runs(self._outbox, but=() if status else (self.name,), status=status or "KILLED")
        halted_before = not self._threads
        self._halt()
        if halted_before:  # by `settle`: the threads have had no chance to tell how it ended
            all(sender.send() for sender in self._senders)
        with self._lock:
            if self._unwritten:
                _LOGGER.warning("%d messages for the tracker could not be noted and are lost.", len(self._unwritten))
            # A run that failed is gone on with by its rerun, which finds here how far it came.
            for outbox in [*self._others, *([self._outbox] if self._outbox and status is None else [])]:
                if not outbox.count_waiting:
                    outbox.remove()
            self._outbox, self._others = None, []

    def settle(self) -> None:
        """Wait until the tracker knows all of it; afterwards nothing more is followed.

        Raises:
            TrackerError: It does not answer.
            FoundryError: A full disk has not taken all that is to be told.
        """
        with self._lock:
            if not self._flush():
                raise FoundryError(
                    f"What the run did can't be noted in {self.name}: the disk takes no more.",
                    hint="Free some space and run the same command again; finished work is kept.",
                    exit_code=1,
                )
        self._halt()
        require_sent(self._workspace, self._senders)

    def _halt(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._threads = []

    def _open(self) -> Outbox:
        """The outbox of this run: the one that a killed process left, else a new one; others' runs are over."""
        sweep(self._workspace)
        own = None
        for outbox in outboxes(self._workspace / HOME):
            header = outbox.header
            if header is None and not any(outbox.messages()) and not outbox.damaged:
                outbox.remove()
                continue
            own_again = header is not None and header.key == self._plan.key and not _is_over(outbox)
            # Nobody works at these now. Steps that go on begin anew, and those that were published never end otherwise.
            close_open_runs(outbox, but=(outbox.folder.name,) if own_again else ())
            if own_again:
                own = outbox
            else:
                self._others.append(outbox)
        now = time.time()
        if own is None:
            name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{uuid.uuid4().hex[:8]}"
            own = Outbox(self._workspace / HOME / name)
        self._outbox, self.name = own, own.folder.name
        self._describe(own)
        self._senders = [Sender(self._workspace, outbox, self._plan.experiment) for outbox in self._others]
        self._senders.append(Sender(self._workspace, own, self._plan.experiment, close_dead=True))
        for work in (self._watch, self._send):
            thread = threading.Thread(target=work, name=f"follower{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return own

    def _describe(self, outbox: Outbox) -> None:
        plan = self._plan
        try:
            outbox.describe(Header(key=plan.key, experiment=plan.experiment))
        except OSError as error:  # the beginning says it as well
            _LOGGER.warning("Whose messages wait in %s can't be noted: %s", outbox.folder, error)
        self._put(
            Begin(
                run=self.name,
                key=plan.key,
                experiment=plan.experiment,
                name=plan.name,
                tags={**plan.tags, WORKSPACE: workspace_tag(self._workspace)},
                params=flat_params(plan.config),
                time=_now(),
            )
        )

    def _watch(self) -> None:
        tree, measured = ProcessTree(self._workspace), time.monotonic()
        started = measured
        while not self._stop.wait(_LOOK_SECONDS):
            with self._lock:
                for events in self._events.values():
                    self._read(events)
                if time.monotonic() - measured >= _MEASURE_SECONDS and self._flush():
                    measured, now = time.monotonic(), _now()
                    seconds = int(measured - started)
                    points = tuple((name, float(value), now, seconds) for name, value in tree.measure().items())
                    self._put(Metrics(run=self.name, points=points))

    def _read(self, events: StepEvents, *, last: bool = False) -> None:
        """Note the new points of a step; on a full disk they wait where they are, but for the last."""
        if not last and not self._flush():
            return
        start = events.offset
        points = events.read()
        if events.offset > start:
            fields = {"points": points, "start": start, "offset": events.offset, "step": events.step}
            self._put(Metrics.model_validate({"run": events.run, **fields}))

    def _keep(self, path: Path, step: str, run: str) -> None:
        if not path.is_file() or self._outbox is None:
            return
        try:
            kept = self._outbox.keep(path, f"{step}/{path.name}")
        except OSError as error:
            _LOGGER.warning("%s can't be kept for the tracker: %s", path, error)
        else:
            self._put(File(run=run, path=kept, to="plots" if path.suffix in (".svg", ".png") else ""))

    def _put(self, message: Message) -> None:
        """Note a message. A disk that does not take it is no reason to stop the work: it is tried again later."""
        with self._lock:
            if self._outbox is not None:
                self._unwritten.append(message)
                self._flush()

    def _flush(self) -> bool:
        """Write what waits in memory; whether nothing does any more."""
        while self._unwritten and self._outbox is not None:
            try:
                self._outbox.put(self._unwritten[0])
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
            answered = all(sender.send() for sender in self._senders)
            if stopping:
                return
            self._stop.wait(_LOOK_SECONDS if answered else _RETRY_SECONDS)


def settle_leftovers(workspace: Path) -> None:
    """Tell the tracker what earlier runs of the workspace could not.

    Raises:
        TrackerError: It does not answer.
    """
    left = outboxes(workspace / HOME)
    require_sent(workspace, [Sender(workspace, outbox) for outbox in left if any(outbox.messages())])


def close_open_runs(outbox: Outbox, *, but: Iterable[str] = (), status: str = "KILLED") -> None:
    """Note that runs of an outbox that have not ended will not go on, those named in `but` left out."""
    last = {message.run: message for message in outbox.messages() if isinstance(message, Begin | End)}
    runs = {name for message in outbox.messages() for name in (message.run, message.run.partition("/")[0])}
    for run in sorted(runs - set(but), key=lambda name: "/" not in name):
        if not isinstance(last.get(run), End):
            try:
                outbox.put(_end(run, status))
            except OSError as error:  # the next run says it
                _LOGGER.warning("The end of %s can't be noted: %s", run, error)


def _where_it_was(outbox: Outbox, run: str, path: Path) -> StepEvents | None:
    """How far the events of a step's run were read by the process that followed it before; None if none did."""
    known = [message for message in outbox.messages() if message.run == run]
    starts = [message.start for message in known if isinstance(message, Begin | Metrics) and message.start is not None]
    if not starts:
        return None
    offsets = [message.offset for message in known if isinstance(message, Metrics) and message.offset is not None]
    steps = [message.step for message in known if isinstance(message, Metrics) and message.step is not None]
    return StepEvents(run, path, max(offsets, default=min(starts)), max(steps, default=-1))


def _is_over(outbox: Outbox) -> bool:
    return any(
        isinstance(message, End) and message.run == outbox.folder.name and message.status == "FINISHED"
        for message in outbox.messages()
    )


def _end(run: str, status: str, offset: int | None = None) -> End:
    return End.model_validate({"run": run, "status": status, "time": _now(), "offset": offset})


def _now() -> int:
    return int(time.time() * 1000)
