"""What travels between the steps of synthesis: facts in, drafts through, rejects out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gme_data.digests import sha256_json


@dataclass(frozen=True, slots=True)
class Place:
    """An entity of the corpus. `flags` maps style to image id."""

    id: str
    name: str
    aliases: tuple[str, ...]
    entity_group: str
    flags: dict[str, str]
    licence: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the place, longest first, so that a name inside a longer one is never taken for it."""
        return tuple(sorted({self.name, *self.aliases} - {""}, key=lambda name: (-len(name), name)))


@dataclass(frozen=True, slots=True)
class Passage:
    """A short text about one place; `page` is the rendered page that shows it, `illustration` a picture beside it."""

    id: str
    place_id: str
    section: str
    text: str
    page: str | None
    illustration: str | None
    licence: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that can be asked about a place; the passage answers it with `value`."""

    id: str
    place_id: str
    section: str
    field: str
    value: str
    passage_id: str
    entity_group: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A question on its way to an example; each step fills the columns it declares, empty means not yet.

    Attributes:
        fact_id: What is asked.
        wording: Which of the fact's questions this is, from 0.
        question: Names the place.
        fused: The question with the name replaced by a reference to a picture.
        flag: Image id of the flag that stands for the name.
        other_flag: The same flag in another style.
        illustration: Image id of the picture (flag or map) beside the passage that answers.
    """

    fact_id: str
    wording: int
    question: str
    fused: str = ""
    flag: str = ""
    other_flag: str = ""
    illustration: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """What a step refused, and why."""

    step: str
    reason: str
    subject: str
    text: str


DraftT = TypeVar("DraftT")
"""A frozen dataclass whose fields are the columns; empty means not yet filled."""


@dataclass(frozen=True, slots=True)
class Stage(Generic[DraftT]):
    """One step over drafts.

    Attributes:
        name: As in the funnel and the rejects.
        reads: Columns of the draft that must be filled.
        writes: Columns that are filled in what it keeps.
        run: Yields for each draft either the draft to go on with or why it is refused.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[[Sequence[DraftT]], Iterator[DraftT | Reject]]


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


def pick(options: Sequence[str], *key: str | int) -> str:
    """One of `options`, decided by `key` alone: the same on every machine and in every order of work."""
    return options[int(sha256_json(list(key))[:12], 16) % len(options)]


def shuffled(options: Sequence[str], *key: str | int) -> list[str]:
    """All of `options` in an order decided by `key` alone."""
    return sorted(options, key=lambda option: sha256_json([option, *key]))
