"""The configuration of a corpus of public training sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from gme_data.errors import FoundryError
from gme_data.items import TaskType
from gme_data.settings import Frozen, Sealable
from gme_synthesis.public.registry import PublicSet, public_set

Kind = Literal["text", "image", "cross", "fused"]


class SetChoice(Frozen):
    """A set, and how much of it is used."""

    name: str
    """Name of the set, as `gme data list` shows it."""
    rows: int | None = Field(default=None, ge=1)
    """Number of rows that are read, sampled by `seed`; None reads all."""
    files: int | None = Field(default=None, ge=1)
    """Number of files of rows that are fetched and read, the first ones; None takes all."""
    task_types: tuple[TaskType, ...] = ()
    """Task types whose examples are used, of a set that has several; empty uses all."""
    kind: Kind | None = None
    """Kind that the set counts as in `shares`; None goes by the task type of each example."""
    share: float = Field(default=1, gt=0)
    """Share of the set in its kind, beside the other sets of the kind."""

    @field_validator("name")
    @classmethod
    def _require_known_name(cls, name: str) -> str:
        try:
            return public_set(name).name
        except FoundryError as error:
            raise ValueError(f"{error} {error.hint}") from error

    @model_validator(mode="after")
    def _require_rows_of_url_set(self) -> Self:
        if self.upstream.layout == "urls" and self.rows is None:
            raise ValueError(f"{self.name} names pictures by their address: `rows` must say how many are fetched")
        return self

    @property
    def upstream(self) -> PublicSet:
        """The set's entry in the registry."""
        return public_set(self.name)


class PublicConfig(Sealable):
    """Which public training sets, in which shares, and what they must be kept apart from."""

    kind: Literal["public"] = "public"
    """The kind of the corpus: training sets by name."""
    sets: tuple[SetChoice, ...] = Field(min_length=1)
    """The sets, each once."""
    accept_licences: tuple[str, ...] = ()
    """Licences whose terms you have read and keep, as `gme data list` shows them; sets under others are refused."""
    data: Path = Path("downloads/public")
    """Folder that `gme data fetch` fills; relative paths start at the folder of the pipeline file. Outside of the
    folders that DVC versions: what others published is pinned by its lock file, and is not ours to pass on."""
    shares: dict[Kind, float] | None = None
    """Shares of the examples by kind, in the paper ``{text: 1, image: 1, cross: 2, fused: 2}``; None uses all."""
    examples: int | None = Field(default=None, ge=1)
    """Number of all examples, divided by `shares`; None uses the most with which every kind has its share."""
    benchmarks: Path | None = None
    """Folder of benchmark tasks, such as `gme umrb fetch` fills, that no example may share anything with. None compares
    with nothing but the tasks that are held out here."""
    compared: Literal["queries", "answers", "pools"] = "answers"
    """What of a benchmark no example may share: its ``queries``, also the documents that answer them (``answers``), or
    also everything that is searched (``pools``). MS MARCO, NQ, HotpotQA and FEVER train on the very passages that
    their benchmarks search: with ``pools`` nothing is left of them."""
    ngram: int = Field(default=13, ge=4)
    """Number of words in a row that no example may share with a benchmark."""
    picture_distance: int = Field(default=4, ge=0, le=7)
    """Bits of a difference hash in which a picture of a benchmark may differ and still be the same."""
    dev: float = Field(default=0.002, ge=0, lt=0.5)
    """Share of the entities held out for choices; without entities a query is one."""
    test: float = Field(default=0.005, ge=0, lt=0.5)
    """Share of the entities held out for the report."""
    max_queries: int = Field(default=1_000, ge=2)
    """Most queries of a held-out task."""
    seed: int = 0
    """Decides what is sampled and what is held out."""

    @field_validator("sets")
    @classmethod
    def _require_distinct_sets(cls, sets: tuple[SetChoice, ...]) -> tuple[SetChoice, ...]:
        names = [choice.name for choice in sets]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate:
            raise ValueError(f"the set {duplicate!r} stands twice")
        return sets

    @field_validator("shares")
    @classmethod
    def _require_positive_shares(cls, shares: dict[Kind, float] | None) -> dict[Kind, float] | None:
        if shares is not None and (not shares or any(share <= 0 for share in shares.values())):
            raise ValueError("expected parts above 0; a kind that is left out has none")
        return shares

    def contents(self) -> list[Any]:
        """Returns, for `Sealable.contents`, the registry entry of each set and the digests of its fetched files."""
        from gme_synthesis.public.benchmarks import benchmarks_identity
        from gme_synthesis.public.store import files_identity

        # The entries as well, since a new instruction or column in the registry makes other examples of the same files.
        files = [files_identity(choice, self.data, self.seed) for choice in self.sets]
        rows = [choice.upstream.model_dump(mode="json") for choice in self.sets]
        return [rows, files, benchmarks_identity(self.benchmarks)]

    def require_licences(self) -> None:
        """Refuses sets whose licence nobody accepted.

        Raises:
            FoundryError: Names the sets and their licences.
        """
        refused = [choice.upstream for choice in self.sets if choice.upstream.licence not in self.accept_licences]
        if refused:
            names = ", ".join(f"{upstream.name} ({upstream.licence})" for upstream in refused)
            licences = ", ".join(dict.fromkeys((*self.accept_licences, *(upstream.licence for upstream in refused))))
            raise FoundryError(
                f"corpus.accept_licences: the licences of these sets are not accepted: {names}.",
                hint=f"Read their terms, then say `accept_licences: [{licences}]`, or leave these sets out.",
            )
