"""Follows a pipeline run while it works and mirrors it to MLflow: one run, in it a run for each step.

Two threads: one reads the steps' ``events.jsonl`` and measures the machine into an outbox on disk, one tells the
tracker. If the tracker does not answer the work goes on and the outbox waits, for this run or the next; `settle` waits
for it before a model is registered. Knows no orchestrator, and nothing of what a step does.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gme_release.outbox import Outbox, outboxes
from gme_release.process_tree import ProcessTree
from gme_release.records import WORKSPACE, event_points, flat_params, workspace_tag
from gme_release.replay import Sender, require_sent

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
        self._events: dict[str, _Events] = {}
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
            known = [message for message in outbox.messages() if message["run"] == run]
            offsets = [message["offset"] for message in known if "offset" in message]
            steps = [message["step"] for message in known if "step" in message]
            path = self._workspace / "runs" / "steps" / step / "events.jsonl"
            size = path.stat().st_size if path.exists() else 0
            # Where a killed run was followed to, else only what is written from now on.
            self._events[step] = _Events(run, path, max(offsets, default=size), max(steps, default=-1))
            tags = {"gme.step": step, "gme.step_key": key, WORKSPACE: workspace_tag(self._workspace)}
            self._put("begin", run, name=title, tags=tags, params=flat_params(config), time=_now())

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
            self._read(events)
            now = _now()
            if counts:
                points = [[f"counts/{name}", float(value), now, 0] for name, value in counts.items()]
                self._put("metrics", events.run, points=points)
            for path in files:
                if path.is_file() and self._outbox:
                    kept = self._outbox.keep(path, f"{step}/{path.name}")
                    self._put("file", events.run, path=kept, to="plots" if path.suffix in (".svg", ".png") else "")
            self._put("end", events.run, status=status, time=now)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Say something about the run, if there is one."""
        with self._lock:
            if self._outbox:
                self._put("tags", self.name, tags=dict(tags))

    def close(self, status: str | None) -> None:
        """Stop following.

        Args:
            status: How the run ended; None if the registration has ended it.
        """
        with self._lock:
            for step in list(self._events):
                self.end_step(step, status or "FAILED")
            if self._outbox and status:
                self._put("end", self.name, status=status, time=_now())
        halted_before = not self._threads
        self._halt()
        if halted_before:  # by `settle`: the threads have had no chance to tell how it ended
            all(sender.send() for sender in self._senders)
        with self._lock:
            # A run that failed is gone on with by its rerun, which finds here how far it came.
            for outbox in [*self._others, *([self._outbox] if self._outbox and status is None else [])]:
                if not outbox.count_waiting:
                    outbox.remove()
            self._outbox, self._others = None, []

    def settle(self) -> None:
        """Wait until the tracker knows all of it; afterwards nothing more is followed.

        Raises:
            TrackerError: It does not answer.
        """
        self._halt()
        require_sent(self._workspace, self._senders)

    def _halt(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._threads = []

    def _open(self) -> Outbox:
        """The outbox of this run: the one that a killed process left, else a new one; others' runs are over."""
        mine = None
        for outbox in outboxes(self._workspace / HOME):
            header = next(outbox.messages(), None)
            if header is None:
                outbox.remove()
            elif header["key"] == self._plan.key and not _is_over(outbox):
                mine = outbox
            else:
                abandon(outbox)
                self._others.append(outbox)
        now = time.time()
        if mine is None:
            name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{uuid.uuid4().hex[:8]}"
            mine = Outbox(self._workspace / HOME / name)
        self._outbox, self.name = mine, mine.folder.name
        self._put(
            "begin",
            self.name,
            key=self._plan.key,
            experiment=self._plan.experiment,
            name=self._plan.name,
            tags={**self._plan.tags, WORKSPACE: workspace_tag(self._workspace)},
            params=flat_params(self._plan.config),
            time=_now(),
        )
        self._senders = [Sender(self._workspace, outbox) for outbox in [*self._others, mine]]
        for work in (self._watch, self._send):
            thread = threading.Thread(target=work, name=f"follower{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return mine

    def _watch(self) -> None:
        tree, measured = ProcessTree(self._workspace), time.monotonic()
        started = measured
        while not self._stop.wait(_LOOK_SECONDS):
            with self._lock:
                for events in self._events.values():
                    self._read(events)
            if time.monotonic() - measured >= _MEASURE_SECONDS:
                measured, now = time.monotonic(), _now()
                seconds = int(measured - started)
                self._put("metrics", self.name, points=[[n, v, now, seconds] for n, v in tree.measure().items()])

    def _read(self, events: _Events) -> None:
        points, fresh = events.read()
        if fresh:
            self._put("metrics", events.run, points=points, offset=events.offset, step=events.step)

    def _put(self, kind: str, run: str, **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """A record that can't be kept is no reason to stop the work; without it the registration is refused later."""
        if self._outbox is None:
            return
        try:
            self._outbox.put({"kind": kind, "run": run, **fields})
        except OSError as error:
            _LOGGER.warning("What the run does can't be noted in %s: %s", self._outbox.folder, error)

    def _send(self) -> None:
        while True:
            stopping = self._stop.is_set()
            answered = all(sender.send() for sender in self._senders)
            if stopping:
                return
            self._stop.wait(_LOOK_SECONDS if answered else _RETRY_SECONDS)


@dataclass(slots=True)
class _Events:
    """How far the events of a step were read: `offset` bytes, `step` the last one told."""

    run: str
    path: Path
    offset: int
    step: int

    def read(self) -> tuple[list[list[Any]], bool]:
        """Points of the new whole lines; steps that a resumed training does again are not told again."""
        if not self.path.exists() or self.path.stat().st_size <= self.offset:
            return [], False
        with self.path.open("rb") as handle:
            handle.seek(self.offset)
            data = handle.read()
        whole = data[: data.rfind(b"\n") + 1]
        points: list[list[Any]] = []
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # a torn line of a killed writer, with the next one behind it
            if event.get("kind") == "step" and int(event["step"]) > self.step:
                self.step = int(event["step"])
                points += event_points(event)
        self.offset += len(whole)
        return points, bool(whole)


def settle_leftovers(workspace: Path) -> None:
    """Tell the tracker what earlier runs of the workspace could not.

    Raises:
        TrackerError: It does not answer.
    """
    left = outboxes(workspace / HOME)
    require_sent(workspace, [Sender(workspace, outbox) for outbox in left if any(outbox.messages())])


def abandon(outbox: Outbox) -> None:
    """Note that a run and its steps will not go on."""
    last = {message["run"]: message["kind"] for message in outbox.messages() if message["kind"] in ("begin", "end")}
    for run in [run for run, kind in last.items() if kind == "begin"]:
        outbox.put({"kind": "end", "run": run, "status": "KILLED", "time": _now()})


def _is_over(outbox: Outbox) -> bool:
    return any(
        message["kind"] == "end" and message["run"] == outbox.folder.name and message["status"] == "FINISHED"
        for message in outbox.messages()
    )


def _now() -> int:
    return int(time.time() * 1000)
