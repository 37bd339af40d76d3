"""Steps over candidates: what one declares, how it is run, and what it lets through, refuses and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gme_data.digests import sha256_json
from gme_synthesis.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Reject:
    """What a step refused, and why.

    Attributes:
        step: Name of the step.
        reason: A word or two with dashes, for counting.
        subject: Id of the passage, example or row, or fact and wording of a draft.
        text: What was refused, or what was expected in its place.
    """

    step: str
    reason: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One step over candidates.

    Attributes:
        name: Name in the funnel and the rejects.
        reads: Columns of the candidate that must be filled.
        writes: Columns that are filled in every candidate that it keeps.
        run: Yields, in order, each candidate that goes on, or the reject in its place. It may yield several for one.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[[Sequence[Candidate]], Iterator[Candidate | Reject]]


@dataclass(slots=True)
class Tally:
    """How many candidates came into a step, how many it kept, and why the others were refused.

    The names of the attributes are keys of ``funnel.json``.
    """

    step: str
    seen: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Adds the counts of another shard of the same step."""
        self.seen += other.seen
        self.kept += other.kept
        for reason, count in other.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count


def check_columns(stages: Sequence[Stage], filled: Sequence[str]) -> None:
    """Checks that every column that a stage reads is in `filled` or written by a stage before it.

    Raises:
        ValueError: A stage reads a column that nothing before it writes.
    """
    available = set(filled)
    for stage in stages:
        if missing := sorted(set(stage.reads) - available):
            raise ValueError(f"stage {stage.name!r} reads {missing}, which no stage before it writes")
        available |= set(stage.writes)


def run_stage(stage: Stage, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Reject], Tally]:
    """Returns the candidates that the stage kept, its rejects, and the counts of both.

    Raises:
        ValueError: The stage kept a candidate without filling a column that it declares.
    """
    accepted: list[Candidate] = []
    rejects: list[Reject] = []
    for result in stage.run(candidates):
        if isinstance(result, Reject):
            rejects.append(result)
            continue
        # Without this check a forgotten column would only show as examples that are not made, many steps later.
        if empty := [name for name in stage.writes if getattr(result, name) in ("", ())]:
            raise ValueError(f"stage {stage.name!r} left {empty} empty in {result!r}")
        accepted.append(result)
    reasons = Counter(reject.reason for reject in rejects)
    return accepted, rejects, Tally(stage.name, len(candidates), len(accepted), dict(reasons))


def pick(options: Sequence[str], *key: str | int) -> str:
    """Returns one of `options`, decided by `key` alone: the same on every machine and in every order of work."""
    # 48 bits of the digest are so many more than options that their remainder is evenly distributed.
    return options[int(sha256_json(list(key))[:12], 16) % len(options)]


def shuffled(options: Sequence[str], *key: str | int) -> list[str]:
    """Returns all of `options` in an order that `key` alone decides."""
    return sorted(options, key=lambda option: sha256_json([option, *key]))
