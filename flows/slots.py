"""One run per slot: a firing of a schedule is known by pipeline, logical date and configuration.

The second firing of a slot finds the first; after an outage the newest missed slot runs and the older ones are noted as
skipped. A record is a small file, written whole; who runs is told by a lock of the operating system, which dies with
its holder. Knows no orchestrator and nothing of what a run does.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, BaseModel, Field

from flows.clock import Clock
from flows.schedule import Schedule
from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.settings import Frozen
from gme_data.structured import StructureError, read_json

State = Literal["running", "done", "gate-closed", "failed", "skipped"]
_SETTLED: tuple[State, ...] = ("done", "gate-closed")
_LONGEST_WAIT = timedelta(minutes=2)
_MOST_NOTED = 200
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Slot:
    """Identity of a run: the pipeline's name, the logical date (to the second, UTC) and the digest of its config."""

    pipeline: str
    date: datetime
    config: str

    @classmethod
    def of(cls, pipeline: str, date: datetime, config: BaseModel) -> Slot:
        """The slot of a resolved configuration."""
        utc = date.astimezone(UTC).replace(microsecond=0)
        return cls(pipeline, utc, sha256_json(config.model_dump(mode="json")))

    def at(self, date: datetime) -> Slot:
        """The same pipeline and config at another date."""
        return Slot(self.pipeline, date, self.config)

    def path(self, workspace: Path) -> Path:
        """Its record."""
        return _home(workspace, self.pipeline) / f"{self.date.strftime(_STAMP)}-{self.config[:12]}.json"


class SlotRecord(Frozen):
    """What is known of a slot."""

    pipeline: str
    """Name of the pipeline."""
    slot: AwareDatetime
    """Logical date."""
    config: str
    """sha256 of the resolved configuration."""
    state: State
    """``running`` with a free lock means that the run was killed."""
    attempts: int
    """How often it was begun."""
    pid: int
    """Process of the last attempt."""
    changed: AwareDatetime
    """When the state was written, by the clock of that moment."""
    detail: str = ""
    """Why it was skipped, failed or stayed behind the gate."""
    result: dict[str, Any] = Field(default_factory=dict)
    """What the run returned."""


@dataclass(frozen=True, slots=True)
class Firing:
    """What became of a firing: `record` of the slot, and whether this firing did the work."""

    record: SlotRecord
    ran: bool

    def summary(self) -> str:
        """One line for people."""
        found = self.record
        name = f"{found.pipeline} {found.slot:%Y-%m-%d %H:%M} UTC"
        if self.ran:
            return f"{name}: {found.state}{f' ({found.detail})' if found.detail else ''}"
        said = {"running": "is running already", "skipped": f"is skipped: {found.detail}"}
        return f"{name} {said.get(found.state, f'is done already ({found.state})')}"


Work = Callable[[], tuple[State, str, dict[str, Any]]]


def fire(slot: Slot, workspace: Path, work: Work, clock: Clock, schedule: Schedule | None = None) -> Firing:
    """Run `work` for `slot` unless that is done, under way, or overtaken by a newer slot.

    Args:
        slot: What is fired.
        workspace: Holds the records.
        work: Returns how it ended, why, and what is to be kept of it. Its exceptions are recorded and passed on.
        clock: Tells what is due.
        schedule: Where the slot comes from; None for one that a person asked for, which no newer slot overtakes.

    Raises:
        FoundryError: The slot is in the future of the clock, its record is unreadable, or `work` raises it.
    """
    _await(slot, clock)
    with _held(slot, workspace) as mine:
        found = read_record(slot, workspace)
        if not mine:
            return Firing(found or _record(slot, "running", 1, clock), ran=False)
        if found is not None and found.state in _SETTLED:
            return Firing(found, ran=False)
        newer = _overtaken_by(slot, workspace, clock, schedule)
        if newer is not None:
            return Firing(_skip(slot, workspace, clock, newer), ran=False)
        if schedule is not None:
            _skip_missed(slot, workspace, clock, schedule)
        return Firing(_run(slot, workspace, work, clock, 1 + (found.attempts if found else 0)), ran=True)


def read_record(slot: Slot, workspace: Path) -> SlotRecord | None:
    """The record of a slot; None if it was never fired.

    Raises:
        FoundryError: The file was changed by hand.
    """
    path = slot.path(workspace)
    return _read(path) if path.exists() else None


def records(workspace: Path, pipeline: str | None = None) -> list[SlotRecord]:
    """All records, of one pipeline or of every one, oldest slot first.

    Raises:
        FoundryError: A file was changed by hand.
    """
    found = [_read(path) for path in (workspace / "runs" / "slots").glob(f"{pipeline or '*'}/*.json")]
    return sorted(found, key=lambda record: (record.pipeline, record.slot, record.config))


def is_alive(record: SlotRecord, workspace: Path) -> bool:
    """Whether a process holds the slot now."""
    with _held(Slot(record.pipeline, record.slot, record.config), workspace) as mine:
        return not mine


def _run(slot: Slot, workspace: Path, work: Work, clock: Clock, attempt: int) -> SlotRecord:
    _write(_record(slot, "running", attempt, clock), workspace)
    try:
        state, detail, result = work()
    except BaseException as error:
        # The type alone for what is no error of ours: its text may hold an address with a password.
        said = str(error) if isinstance(error, FoundryError) else type(error).__name__
        _write(_record(slot, "failed", attempt, clock, said), workspace)
        raise
    return _write(_record(slot, state, attempt, clock, detail, result), workspace)


def _await(slot: Slot, clock: Clock) -> None:
    """Wait for a slot that is about to come: clocks of two machines differ by seconds.

    Raises:
        FoundryError: It is further away than that.
    """
    ahead = slot.date - clock.now()
    if ahead > _LONGEST_WAIT:
        raise FoundryError(
            f"The slot {slot.date:%Y-%m-%d %H:%M:%S} UTC of '{slot.pipeline}' is {ahead} in the future of this clock.",
            hint="Set the clock of this machine right, or give a logical date that has come.",
        )
    if ahead > timedelta():
        clock.sleep(ahead.total_seconds())


def _overtaken_by(slot: Slot, workspace: Path, clock: Clock, schedule: Schedule | None) -> datetime | None:
    if schedule is None:
        return None
    # Another machine's clock may be ahead by as much as is waited for; a slot beyond that was begun by a wrong clock.
    latest = clock.now() + _LONGEST_WAIT
    known = records(workspace, slot.pipeline)
    begun = [found.slot for found in known if found.state != "skipped" and found.slot <= latest]
    newest = max([schedule.newest(clock.now()), *begun])
    return newest if newest > slot.date else None


def _skip_missed(slot: Slot, workspace: Path, clock: Clock, schedule: Schedule) -> None:
    """Note the newest slots between the last one recorded and this one, which nobody fired."""
    earlier = [found.slot for found in records(workspace, slot.pipeline) if found.slot < slot.date]
    if not earlier:
        return
    for date in deque(schedule.between(max(earlier), slot.date), maxlen=_MOST_NOTED):
        missed = slot.at(date)
        with _held(missed, workspace) as mine:
            if mine and read_record(missed, workspace) is None:
                _skip(missed, workspace, clock, slot.date)


def _skip(slot: Slot, workspace: Path, clock: Clock, newer: datetime) -> SlotRecord:
    found = read_record(slot, workspace)
    detail = f"the slot of {newer:%Y-%m-%d %H:%M} UTC is newer"
    return _write(_record(slot, "skipped", found.attempts if found else 0, clock, detail), workspace)


def _record(
    slot: Slot, state: State, attempt: int, clock: Clock, detail: str = "", result: dict[str, Any] | None = None
) -> SlotRecord:
    return SlotRecord(
        pipeline=slot.pipeline,
        slot=slot.date,
        config=slot.config,
        state=state,
        attempts=attempt,
        pid=os.getpid(),
        changed=clock.now(),
        detail=detail,
        result=result or {},
    )


def _write(record: SlotRecord, workspace: Path) -> SlotRecord:
    path = Slot(record.pipeline, record.slot, record.config).path(workspace)
    atomic_write(path, (record.model_dump_json(indent=1) + "\n").encode())
    return record


def _read(path: Path) -> SlotRecord:
    try:
        return read_json(path, SlotRecord)
    except StructureError as error:
        raise FoundryError(
            f"{path} is no record of a slot: {error.reason}",
            hint="Delete it: the slot will then count as never fired.",
        ) from error


@contextmanager
def _held(slot: Slot, workspace: Path) -> Iterator[bool]:
    """Hold the slot's lock if it is free; tells whether it was."""
    path = slot.path(workspace).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _home(workspace: Path, pipeline: str) -> Path:
    return workspace / "runs" / "slots" / pipeline
