"""One run per slot: a slot is identified by pipeline, logical date and configuration.

A second firing of a slot finds the first one's record; after an outage the newest missed slot runs, and the older ones
are recorded as skipped. A record is a small file, written atomically. Which process runs a slot is decided by a lock of
the operating system, which is freed when its holder dies. Knows no orchestrator and nothing of what a run does.
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

SlotState = Literal["running", "done", "gate-closed", "failed", "skipped"]
_FINISHED: tuple[SlotState, ...] = ("done", "gate-closed")
"""States after which a slot is not run again."""
_MAX_WAIT = timedelta(minutes=2)
"""The most by which the clocks of two machines may differ."""
_MAX_SKIPPED = 200
"""The most missed slots that are recorded; after a long outage the older ones are left out."""
_TIMESTAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Slot:
    """The pipeline's name, the logical date (to the second, in UTC) and the digest of the configuration."""

    pipeline: str
    date: datetime
    config: str

    @classmethod
    def of(cls, pipeline: str, date: datetime, config: BaseModel) -> Slot:
        """Returns the slot of a resolved configuration."""
        utc = date.astimezone(UTC).replace(microsecond=0)
        return cls(pipeline, utc, sha256_json(config.model_dump(mode="json")))

    def at(self, date: datetime) -> Slot:
        """Returns the slot of the same pipeline and configuration at another date."""
        return Slot(self.pipeline, date, self.config)

    def path(self, workspace: Path) -> Path:
        """Returns the file of the slot's record."""
        return (
            workspace / "runs" / "slots" / self.pipeline / f"{self.date.strftime(_TIMESTAMP)}-{self.config[:12]}.json"
        )


class SlotRecord(Frozen):
    """The record of a slot."""

    pipeline: str
    """Name of the pipeline."""
    slot: AwareDatetime
    """Logical date of the slot."""
    config: str
    """sha256 of the resolved configuration."""
    state: SlotState
    """State of the slot; ``running`` with a free lock means that the run was killed."""
    attempts: int
    """Number of times that a run was begun."""
    pid: int
    """Process id of the last attempt."""
    changed: AwareDatetime
    """Time at which the state was written."""
    detail: str = ""
    """Reason why it was skipped, failed, or stayed behind the gate."""
    result: dict[str, Any] = Field(default_factory=dict)
    """Result of the run."""


@dataclass(frozen=True, slots=True)
class Firing:
    """The result of a firing: `record` of the slot, and whether this firing ran it."""

    record: SlotRecord
    ran: bool

    def summary(self) -> str:
        """Returns one line for people."""
        record = self.record
        name = f"{record.pipeline} {record.slot:%Y-%m-%d %H:%M} UTC"
        if self.ran:
            return f"{name}: {record.state}{f' ({record.detail})' if record.detail else ''}"
        texts = {"running": "is running already", "skipped": f"is skipped: {record.detail}"}
        return f"{name} {texts.get(record.state, f'is done already ({record.state})')}"


Work = Callable[[], tuple[SlotState, str, dict[str, Any]]]
"""Runs the pipeline; returns state, detail and result for the record."""


def fire(slot: Slot, workspace: Path, work: Work, clock: Clock, schedule: Schedule | None = None) -> Firing:
    """Runs `work` for `slot`, unless the slot is done, running, or superseded by a newer slot.

    Args:
        slot: The slot.
        workspace: Folder of the records.
        work: Runs the pipeline; its exceptions are recorded and raised again.
        clock: Tells which slots are due.
        schedule: The schedule that fired the slot; None for a slot that a person asked for, which none supersedes.

    Raises:
        FoundryError: The slot is in the future of the clock, its record can't be read, or `work` raises it.
    """
    _wait_until_due(slot, clock)
    # The lock is held while the work runs: a second firing of the slot finds it taken, and a killed run's is free.
    with _try_lock(slot, workspace) as acquired:
        record = read_slot_record(slot, workspace)
        if not acquired:
            return Firing(record or _new_record(slot, "running", 1, clock), ran=False)
        if record is not None and record.state in _FINISHED:
            return Firing(record, ran=False)
        newer = _newer_slot(slot, workspace, clock, schedule)
        if newer is not None:
            return Firing(_skip(slot, workspace, clock, newer), ran=False)
        # Only a slot of the schedule has predecessors that could have been missed.
        if schedule is not None:
            _skip_missed(slot, workspace, clock, schedule)
        return Firing(_run(slot, workspace, work, clock, 1 + (record.attempts if record else 0)), ran=True)


def read_slot_record(slot: Slot, workspace: Path) -> SlotRecord | None:
    """Returns the record of a slot; None if it was never fired.

    Raises:
        FoundryError: The file is no record.
    """
    path = slot.path(workspace)
    return _read(path) if path.exists() else None


def slot_records(workspace: Path, pipeline: str | None = None) -> list[SlotRecord]:
    """Returns all records, of one pipeline or of every one, oldest slot first.

    Raises:
        FoundryError: A file is no record.
    """
    records = [_read(path) for path in (workspace / "runs" / "slots").glob(f"{pipeline or '*'}/*.json")]
    return sorted(records, key=lambda record: (record.pipeline, record.slot, record.config))


def is_alive(record: SlotRecord, workspace: Path) -> bool:
    """Returns whether a process holds the slot's lock now."""
    with _try_lock(Slot(record.pipeline, record.slot, record.config), workspace) as acquired:
        return not acquired


def _run(slot: Slot, workspace: Path, work: Work, clock: Clock, attempt: int) -> SlotRecord:
    _write(_new_record(slot, "running", attempt, clock), workspace)
    try:
        state, detail, result = work()
    except BaseException as error:
        # The type alone for errors that are not ours: the message may have an address with a password.
        reason = str(error) if isinstance(error, FoundryError) else type(error).__name__
        _write(_new_record(slot, "failed", attempt, clock, reason), workspace)
        raise
    return _write(_new_record(slot, state, attempt, clock, detail, result), workspace)


def _wait_until_due(slot: Slot, clock: Clock) -> None:
    """Waits for a slot that is due in seconds: the clocks of two machines differ by as much.

    Raises:
        FoundryError: It is due later than that.
    """
    ahead = slot.date - clock.now()
    if ahead > _MAX_WAIT:
        raise FoundryError(
            f"The slot {slot.date:%Y-%m-%d %H:%M:%S} UTC of '{slot.pipeline}' is {ahead} in the future of this clock.",
            hint="Set the clock of this machine right, or give a logical date that has come.",
        )
    if ahead > timedelta():
        clock.sleep(ahead.total_seconds())


def _newer_slot(slot: Slot, workspace: Path, clock: Clock, schedule: Schedule | None) -> datetime | None:
    """Returns the date of a newer slot of the schedule that is due or was begun; None if there is none."""
    if schedule is None:
        return None
    # The clock of another machine may be ahead by up to `_MAX_WAIT`; a later slot was begun by a wrong clock.
    latest = clock.now() + _MAX_WAIT
    records = slot_records(workspace, slot.pipeline)
    begun = [record.slot for record in records if record.state != "skipped" and record.slot <= latest]
    newest = max([schedule.newest(clock.now()), *begun])
    return newest if newest > slot.date else None


def _skip_missed(slot: Slot, workspace: Path, clock: Clock, schedule: Schedule) -> None:
    """Records as skipped the newest slots between the last recorded one and this one, which were never fired."""
    earlier = [record.slot for record in slot_records(workspace, slot.pipeline) if record.slot < slot.date]
    if not earlier:  # the first slot ever: nothing was missed before it
        return
    for date in deque(schedule.between(max(earlier), slot.date), maxlen=_MAX_SKIPPED):
        missed = slot.at(date)
        with _try_lock(missed, workspace) as acquired:
            if acquired and read_slot_record(missed, workspace) is None:
                _skip(missed, workspace, clock, slot.date)


def _skip(slot: Slot, workspace: Path, clock: Clock, newer: datetime) -> SlotRecord:
    record = read_slot_record(slot, workspace)
    detail = f"the slot of {newer:%Y-%m-%d %H:%M} UTC is newer"
    return _write(_new_record(slot, "skipped", record.attempts if record else 0, clock, detail), workspace)


def _new_record(
    slot: Slot, state: SlotState, attempt: int, clock: Clock, detail: str = "", result: dict[str, Any] | None = None
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
def _try_lock(slot: Slot, workspace: Path) -> Iterator[bool]:
    """Holds the slot's lock in the block if it is free; yields whether it was."""
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
