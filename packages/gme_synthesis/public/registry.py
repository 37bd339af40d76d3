"""Public training sets as data: where each lies on the hub, in which layout, under which licence, and who says so.

The rows are those of ``sets.yaml``. Knows no file on this machine and no hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from gme_data.errors import FoundryError, did_you_mean
from gme_data.items import TaskType
from gme_data.paths import BelowPath
from gme_data.settings import Frozen, read_raw

_TABLE = Path(__file__).with_name("sets.yaml")
FACTS = ("repository", "licence", "bytes", "rows", "task_types", "instruction", "layout")
"""What must have a source to count as verified."""
Layout = Literal["columns", "tevatron", "mmeb", "m-beir", "beir", "classes", "pages", "urls"]
Role = Literal["rows", "queries", "corpus", "qrels", "pool", "instructions", "pictures"]
KINDS: Mapping[str, tuple[TaskType, ...]] = {
    "text": ("T->T",),
    "image": ("I->I",),
    "cross": ("T->I", "T->VD", "I->T"),
    "fused": ("T->IT", "IT->T", "IT->I", "IT->IT"),
}
"""The four kinds by which the paper states its shares, and their task types."""


class SetFile(Frozen):
    """A file of a set, or several by a pattern."""

    path: BelowPath
    """In its repository; ``*`` stands for any characters but ``/``."""
    role: Role
    """What is in it."""
    repository: str = ""
    """Where it lies, if not in the set's own repository."""


class PublicSet(Frozen):
    """One training set."""

    name: str
    """What a pipeline file calls it."""
    title: str
    """What people call it."""
    repository: str
    """``owner/name`` of the dataset repository on the hub."""
    config: str
    """Its configuration there."""
    split: str
    """Its split there."""
    revision: str | None
    """Commit that is fetched; None takes the newest at the first fetch, which the lock file then pins."""
    licence: str
    """As stated by its source; ``LicenseRef-unstated`` where nobody states it."""
    gated: bool = False
    """Whether the hub asks each user to accept terms first."""
    bytes: int | None = Field(ge=0)
    """Of its files together; None where that isn't known."""
    rows: int | None = Field(ge=0)
    """Of the set; None where that isn't known."""
    task_types: tuple[TaskType, ...]
    """Which examples become of it."""
    instruction: str | None
    """Before every query; None where the set brings its own."""
    layout: Layout
    """How its files are read, see `gme_synthesis.public.upstream`."""
    columns: dict[str, str] = Field(default={})
    """Our name of a column -> its own."""
    files: tuple[SetFile, ...]
    """What is fetched: these files and no others."""
    note: str = ""
    """What a reader should know of it."""
    sources: dict[str, str]
    """Fact -> who states it; ``set`` says who trained on it."""

    @property
    def unverified(self) -> tuple[str, ...]:
        """Facts that nobody was found to state."""
        return tuple(fact for fact in FACTS if fact not in self.sources)

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository that it has files in."""
        return tuple(dict.fromkeys(file.repository or self.repository for file in self.files))

    def patterns(self, repository: str) -> tuple[SetFile, ...]:
        """Its files in a repository."""
        return tuple(file for file in self.files if (file.repository or self.repository) == repository)


@cache
def public_sets() -> Mapping[str, PublicSet]:
    """All sets by name, in the order of the paper."""
    raw, _ = read_raw(_TABLE)
    named = {name: {"name": name, **fields} for name, fields in raw.items()}
    return TypeAdapter(dict[str, PublicSet]).validate_python(named)


def public_set(name: str) -> PublicSet:
    """A set by name.

    Raises:
        FoundryError: There is none of that name; suggests one.
    """
    known = public_sets()
    if name not in known:
        raise FoundryError(
            f"No public set '{name}'.{did_you_mean(name, known)}",
            hint=f"`gme data list` shows all: {', '.join(known)}.",
        )
    return known[name]


def kind_of(task_type: str) -> str:
    """The kind that a task type belongs to."""
    return next(kind for kind, types in KINDS.items() if task_type in types)


def in_type_order(task_types: Iterable[str]) -> list[str]:
    """Task types in the order of the kinds."""
    order: list[str] = [name for types in KINDS.values() for name in types]
    return sorted(task_types, key=order.index)
