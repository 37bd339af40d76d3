"""A daily pipeline whose steps are a miniature and whose slots, gate and registry are real; a clock that is given.

``python week.py WORKSPACE DAY``: the firing of that day in a process that SIGKILLs itself in the middle of registering.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gme_release"))

from release_miniature import build_workspace, good_scores, load_facts, register_and_die

from flows.schedule import Schedule
from flows.slots import Firing, Slot, SlotState, fire
from gme_release.config import ReleaseConfig
from gme_release.registry.registration import Registration, register

START = datetime(2026, 3, 2, 3, tzinfo=UTC)
DAILY = Schedule(cron="0 3 * * *")


@dataclass
class GivenClock:
    """Shows what it is told and only moves when somebody sleeps."""

    time: datetime = START
    waited: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.time += timedelta(seconds=seconds)


def fire_day(workspace: Path, day: int, today: int, *, good: bool = True, die: bool = False) -> Firing:
    """Fire the slot of `day` at half past three of `today`; every day trains another model."""

    def work() -> tuple[SlotState, str, dict[str, Any]]:
        build_workspace(workspace, seed=day, scores=None if good else bad_scores())
        if die:
            register_and_die(workspace, "create_model_version", "after")
        made: Registration = register(workspace, ReleaseConfig(), load_facts(workspace))
        verdict = made.verdict
        result = {"version": made.version, "created": made.created, "run_id": made.run_id}
        return "done" if verdict.passed else "gate-closed", "; ".join(verdict.reasons), result

    slot = Slot.of("tiny", START + timedelta(days=day), ReleaseConfig())
    return fire(slot, workspace, work, GivenClock(START + timedelta(days=today, minutes=30)), DAILY)


def bad_scores() -> dict[str, object]:
    """Scores of a model that is worse than the floor allows."""
    scores: dict[str, Any] = good_scores()
    for task in scores["tasks"]:
        task["value"] = 0.01
        task["scores"] = {"hit_rate_at_5": 0.01, "hit_rate_at_10": 0.02}
    return scores


if __name__ == "__main__":
    fire_day(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[2]), die=True)
