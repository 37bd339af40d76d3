"""A slot runs once, the newest missed one runs, and a clock that jumps does no harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.week import START, GivenClock

from flows.schedule import Schedule
from flows.slots import Firing, Slot, SlotState, Work, fire, is_alive, slot_records
from gme_data.errors import FoundryError
from gme_data.settings import Frozen

DAILY = Schedule(cron="0 3 * * *")


class Settings(Frozen):
    size: int = 1


@dataclass
class World:
    """A schedule, a clock, and a list of the days whose work was done."""

    workspace: Path
    clock: GivenClock = field(default_factory=GivenClock)
    done: list[int] = field(default_factory=list)

    def fire(self, day: int, work: Work | None = None, schedule: Schedule | None = DAILY, size: int = 1) -> Firing:
        slot = Slot.of("weekly", START + timedelta(days=day), Settings(size=size))
        return fire(slot, self.workspace, work or self.worker(day), self.clock, schedule)

    def worker(self, day: int) -> Work:
        def work() -> tuple[SlotState, str, dict[str, Any]]:
            self.done.append(day)
            return "done", "", {"version": str(day)}

        return work

    def at(self, day: float) -> None:
        self.clock.time = START + timedelta(days=day)

    def states(self) -> dict[int, str]:
        return {(record.slot - START).days: record.state for record in slot_records(self.workspace)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_second_firing_finds_the_first(world: World) -> None:
    assert world.fire(0).ran
    again = world.fire(0)
    assert not again.ran
    assert "done already" in again.summary()
    assert again.record.result == {"version": "0"}
    assert world.done == [0]


def test_another_configuration_is_another_run(world: World) -> None:
    assert world.fire(0).ran
    assert world.fire(0, size=2).ran


def test_a_firing_during_the_run_is_told_so(world: World) -> None:
    seen = []

    def work() -> tuple[SlotState, str, dict[str, Any]]:
        seen.append(world.fire(0).summary())
        seen.append(str(is_alive(slot_records(world.workspace)[0], world.workspace)))
        return "done", "", {}

    assert world.fire(0, work).ran
    assert "running already" in seen[0]
    assert seen[1] == "True"
    assert not is_alive(slot_records(world.workspace)[0], world.workspace)


def test_of_missed_slots_the_newest_runs_whatever_order_they_are_fired_in(world: World) -> None:
    world.fire(0)
    world.at(3.1)
    assert [world.fire(day).ran for day in (1, 3, 2)] == [False, True, False]
    assert world.states() == {0: "done", 1: "skipped", 2: "skipped", 3: "done"}
    assert world.done == [0, 3]


def test_slots_that_nobody_fired_are_noted(world: World) -> None:
    world.fire(0)
    world.at(3)
    world.fire(3)
    assert world.states() == {0: "done", 1: "skipped", 2: "skipped", 3: "done"}


def test_who_asks_for_a_skipped_slot_gets_it(world: World) -> None:
    world.at(2)
    assert not world.fire(1).ran
    assert world.fire(1, schedule=None).ran
    assert world.states()[1] == "done"


def test_a_slot_of_the_future_is_refused_and_one_of_the_next_seconds_awaited(world: World) -> None:
    with pytest.raises(FoundryError, match="in the future of this clock"):
        world.fire(1)
    assert world.states() == {}
    world.at(1 - 5 / 86400)
    assert world.fire(1).ran
    assert world.clock.waited == [5.0]


@pytest.mark.hardening("faults", "F29", "a clock a year ahead, a clock set back")
def test_a_clock_set_back_undoes_nothing(world: World) -> None:
    world.at(2)
    world.fire(2)
    world.at(0.5)
    with pytest.raises(FoundryError, match="in the future"):
        world.fire(2)
    world.at(2)
    assert "done already" in world.fire(2).summary()
    assert not world.fire(0).ran
    assert world.done == [2]


@pytest.mark.hardening("faults", "F29", "a clock a year ahead, a clock set back")
def test_a_clock_that_was_a_year_ahead_stops_no_slot_once_it_is_right(world: World) -> None:
    world.fire(0)
    world.at(365)
    assert world.fire(365).ran
    for day in (1, 2, 3):  # all of them noted as skipped in that moment
        world.at(day)
        assert world.fire(day).ran
    world.at(5)
    assert [world.fire(day).ran for day in (4, 5)] == [False, True]
    assert world.done == [0, 365, 1, 2, 3, 5]


def test_a_machine_whose_clock_is_seconds_ahead_is_believed(world: World) -> None:
    world.at(2)
    world.fire(2)
    world.at(2 - 60 / 86400)
    assert not world.fire(1).ran


def test_a_schedule_of_every_minute_notes_no_year_of_slots(world: World) -> None:
    minutes = Schedule(cron="* * * * *")
    world.fire(0, schedule=minutes)
    world.at(30)
    assert world.fire(30, schedule=minutes).ran
    assert len(slot_records(world.workspace)) == 2 + 200


@pytest.mark.parametrize(
    ("error", "said"), [(FoundryError("no disk"), "no disk"), (OSError("https://user:secret@host"), "OSError")]
)
def test_a_failed_slot_may_be_fired_again(world: World, error: Exception, said: str) -> None:
    def work() -> tuple[SlotState, str, dict[str, Any]]:
        raise error

    with pytest.raises(type(error)):
        world.fire(0, work)
    [record] = slot_records(world.workspace)
    assert (record.state, record.detail) == ("failed", said)
    assert world.fire(0).record.attempts == 2


def test_a_closed_gate_is_an_end(world: World) -> None:
    assert world.fire(0, lambda: ("gate-closed", "too low", {})).record.detail == "too low"
    assert not world.fire(0).ran


def test_a_record_changed_by_hand_is_named(world: World) -> None:
    world.fire(0)
    [path] = world.workspace.glob("runs/slots/weekly/*.json")
    path.write_text("{}")
    with pytest.raises(FoundryError, match=path.name):
        world.fire(0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule(cron="0 3 * *"),
        lambda: Schedule(cron="0 25 * * *"),
        lambda: Schedule(cron="0 0 3 * * 1"),
        lambda: Schedule(time_zone="Europe/Atlantis"),
    ],
)
def test_a_bad_schedule_is_refused(make: Callable[[], Schedule]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_summer_time_shifts_the_slot_and_loses_none() -> None:
    berlin = Schedule(cron="0 3 * * *", time_zone="Europe/Berlin")
    slots = list(berlin.between(datetime(2026, 3, 27, 12, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)))
    assert [slot.hour for slot in slots] == [2, 1, 1]
    assert berlin.newest(slots[1]) == slots[1]
    assert berlin.newest(slots[1] - timedelta(seconds=1)) == slots[0]
