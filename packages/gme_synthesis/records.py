"""What travels between the steps of synthesis: candidates through, rejects out, and how many of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gme_data.digests import sha256_json
from gme_synthesis.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Reject:
    """What a step refused, and why."""

    step: str
    reason: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One step over candidates.

    Attributes:
        name: As in the funnel and the rejects.
        reads: Columns of the candidate that must be filled.
        writes: Columns that are filled in what it keeps.
        run: Yields for each candidate what goes on, or why it is refused.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[[Sequence[Candidate]], Iterator[Candidate | Reject]]


@dataclass(slots=True)
class Tally:
    """How many came into a step, how many stayed, and why the others did not."""

    step: str
    seen: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add the numbers of another shard of the same step."""
        self.seen += other.seen
        self.kept += other.kept
        for reason, count in other.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count


def check_columns(stages: Sequence[Stage], given: Sequence[str]) -> None:
    """Raise ValueError if a stage reads a column that nothing before it writes."""
    there = set(given)
    for stage in stages:
        if missing := sorted(set(stage.reads) - there):
            raise ValueError(f"stage {stage.name!r} reads {missing}, which no stage before it writes")
        there |= set(stage.writes)


def run_stage(stage: Stage, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Reject], Tally]:
    """Kept candidates, rejects and their counts.

    Raises:
        ValueError: The stage kept a candidate without filling a column that it declares.
    """
    kept: list[Candidate] = []
    rejects: list[Reject] = []
    for outcome in stage.run(candidates):
        if isinstance(outcome, Reject):
            rejects.append(outcome)
            continue
        if empty := [name for name in stage.writes if getattr(outcome, name) in ("", ())]:
            raise ValueError(f"stage {stage.name!r} left {empty} empty in {outcome!r}")
        kept.append(outcome)
    return kept, rejects, tally(stage.name, len(candidates), len(kept), rejects)


def tally(step: str, seen: int, kept: int, rejects: Sequence[Reject]) -> Tally:
    """Counts of one step, rejects by reason."""
    result = Tally(step, seen, kept)
    for reject in rejects:
        result.rejected[reject.reason] = result.rejected.get(reject.reason, 0) + 1
    return result


def pick(options: Sequence[str], *key: str | int) -> str:
    """One of `options`, decided by `key` alone: the same on every machine and in every order of work."""
    return options[int(sha256_json(list(key))[:12], 16) % len(options)]


def shuffled(options: Sequence[str], *key: str | int) -> list[str]:
    """All of `options` in an order decided by `key` alone."""
    return sorted(options, key=lambda option: sha256_json([option, *key]))
