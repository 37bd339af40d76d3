"""Runs drafts through the stages, one shard of facts at a time, and counts what happens to them.

Knows the order of the stages and their declared columns; what a stage does is its own business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gme_synthesis.records import Draft, DraftT, Reject, Stage, Tally


class Timed(Protocol):
    """Work that knows how long it took."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Wall time by step."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What one shard gave: questions that name their place, those that also got pictures, rejects, counts a step.

    `seconds` is wall time by stage and no part of the output.
    """

    named: list[Draft]
    pictured: list[Draft]
    rejects: list[Reject]
    tallies: list[Tally]
    seconds: dict[str, float] = field(default_factory=dict)


def seconds_by_step(shards: Iterable[Timed]) -> dict[str, float]:
    """Wall time of each step over all shards."""
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(shard.seconds)
    return {step: round(seconds, 2) for step, seconds in total.items()}


def check_columns(stages: Sequence[Stage[Any]], given: Sequence[str]) -> None:
    """Raise ValueError if a stage reads a column that nothing before it writes."""
    there = set(given)
    for stage in stages:
        if missing := sorted(set(stage.reads) - there):
            raise ValueError(f"stage {stage.name!r} reads {missing}, which no stage before it writes")
        there |= set(stage.writes)


def run_stage(stage: Stage[DraftT], drafts: Sequence[DraftT]) -> tuple[list[DraftT], list[Reject], Tally]:
    """Kept drafts, rejects and their counts.

    Raises:
        ValueError: The stage kept a draft without filling a column that it declares.
    """
    kept: list[DraftT] = []
    rejects: list[Reject] = []
    for outcome in stage.run(drafts):
        if isinstance(outcome, Reject):
            rejects.append(outcome)
            continue
        if empty := [name for name in stage.writes if getattr(outcome, name) in ("", ())]:
            raise ValueError(f"stage {stage.name!r} left {empty} empty in {outcome!r}")
        kept.append(outcome)
    return kept, rejects, tally(stage.name, len(drafts), len(kept), rejects)


def tally(step: str, seen: int, kept: int, rejects: Sequence[Reject]) -> Tally:
    """Counts of one step, rejects by reason."""
    result = Tally(step, seen, kept)
    for reject in rejects:
        result.rejected[reject.reason] = result.rejected.get(reject.reason, 0) + 1
    return result
