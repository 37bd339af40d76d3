"""Public training sets as data: where each lies on the hub, in which layout, under which licence, by which source.

The entries are those of ``sets.yaml``. Knows no file on this machine and no hub.
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
"""Facts that count as verified if the entry names their source."""
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
    """Path in the repository; ``*`` stands for any characters but ``/``."""
    role: Role
    """Role of the file in the layout."""
    repository: str = ""
    """Repository of the file, if it is not the set's main one."""


class PublicSet(Frozen):
    """One training set."""

    name: str
    """Name of the set in a pipeline file."""
    title: str
    """Name of the set in the literature."""
    repository: str
    """``owner/name`` of the dataset repository on the hub."""
    config: str
    """Configuration of the repository."""
    split: str
    """Split of the repository."""
    revision: str | None
    """Commit that is fetched; None takes the newest at the first fetch, which the lock file then pins."""
    licence: str
    """Licence as the source states it; ``LicenseRef-unstated`` where no source does."""
    gated: bool = False
    """Whether the hub asks each user to accept terms first."""
    bytes: int | None = Field(ge=0)
    """Size of all files; None where it isn't known."""
    rows: int | None = Field(ge=0)
    """Number of rows; None where it isn't known."""
    task_types: tuple[TaskType, ...]
    """Task types of the examples."""
    instruction: str | None
    """Instruction before every query; None where the rows have their own."""
    layout: Layout
    """How the files are read, see `gme_synthesis.public.upstream`."""
    columns: dict[str, str] = Field(default={})
    """Our name of a column -> the name in the set."""
    files: tuple[SetFile, ...]
    """Files that are fetched, and no others."""
    note: str = ""
    """What a reader should know of the set."""
    sources: dict[str, str]
    """Fact -> its source; ``set`` names who trained on the set."""

    @property
    def unverified(self) -> tuple[str, ...]:
        """Facts for which no source was found."""
        return tuple(fact for fact in FACTS if fact not in self.sources)

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository that has files of the set."""
        return tuple(dict.fromkeys(file.repository or self.repository for file in self.files))

    def patterns(self, repository: str) -> tuple[SetFile, ...]:
        """Returns the files of the set in a repository."""
        return tuple(file for file in self.files if (file.repository or self.repository) == repository)


@cache
def public_sets() -> Mapping[str, PublicSet]:
    """Returns all sets by name, in the order of the paper."""
    raw, _ = read_raw(_TABLE)
    entries = {name: {"name": name, **fields} for name, fields in raw.items()}
    return TypeAdapter(dict[str, PublicSet]).validate_python(entries)


def public_set(name: str) -> PublicSet:
    """Returns a set by name.

    Raises:
        FoundryError: There is no set of that name; suggests one.
    """
    sets = public_sets()
    if name not in sets:
        raise FoundryError(
            f"No public set '{name}'.{did_you_mean(name, sets)}",
            hint=f"`gme data list` shows all: {', '.join(sets)}.",
        )
    return sets[name]


def kind_of(task_type: str) -> str:
    """Returns the kind that a task type belongs to."""
    return next(kind for kind, types in KINDS.items() if task_type in types)


def in_type_order(task_types: Iterable[str]) -> list[str]:
    """Returns task types in the order of the kinds."""
    order: list[str] = [name for types in KINDS.values() for name in types]
    return sorted(task_types, key=order.index)
