"""What can be scored: anything that ranks the documents of a task, or knows its expected score.

`DenseSystem` makes a system of an encoder: it encodes each distinct content once, whichever tasks ask for it, and
searches exactly, a block of documents in memory at a time. Knows no metric's meaning, and no particular model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_data.items import Item, modalities_of
from gme_data.progress import Progress
from gme_data.tasks import Document, Query, TaskCard
from gme_embedder.index import search_shards
from umrb.data.loading import LoadedTask
from umrb.data.sides import Digests, Side, View, as_given, blocks
from umrb.data.tasks import NumberedTask
from umrb.metrics import Floats, Ints, per_query
from umrb.systems.vectors import Rows, Vectors, VectorSpace, VectorStore

if TYPE_CHECKING:
    from gme_embedder.embedder import Embedder

_FEW = 2_000
"""Contents that are encoded without a word of their own."""
_TOLD = 3
"""Items that an error names; of the others it says how many."""


class Ranking(NamedTuple):
    """What a search returned: [q, k] document positions (-1: nothing), and their scores, best first."""

    rows: Ints
    scores: NDArray[np.float32]


class QueryScores(NamedTuple):
    """Per-query metrics by name, each [q], and the ranking behind them, where there is one."""

    metrics: dict[str, Floats]
    ranking: Ranking | None


class System(Protocol):
    """Anything with a row in the table."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def applies_to(self, card: TaskCard) -> bool:
        """Whether this system can see both sides of a task."""
        ...

    def missing(self, tasks: Sequence[NumberedTask]) -> int:
        """Contents of the tasks that `prepare` would encode."""
        ...

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Do what processes that share the work can do a part of each."""
        ...

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        """Score every query by `metrics`, from at most `depth` documents each."""
        ...


SystemFactory: TypeAlias = Callable[[LoadedTask], System]
"""Makes the system that scores a task. Models of mteb must know the task, for they may prompt each differently."""


def sides(task_type: str) -> tuple[frozenset[str], frozenset[str]]:
    """What query and documents are made of: ``"IT->T"`` -> ``({"I", "T"}, {"T"})``; a visual document is a picture."""
    query, document = modalities_of(task_type)
    return frozenset(query), frozenset(document)


Encode: TypeAlias = Callable[[Sequence[Item], str | None, Images | None], Vectors]
"""``(items, instruction, where their pictures are) -> float32 [n, d]`` of unit length."""


class BadItemsError(FoundryError):
    """What an encoder is given can't be encoded: some items, or all of them for their instruction.

    Attributes:
        reasons: Why, by the number of the item among those that it was given; empty if it is about no single item.
    """

    def __init__(self, reasons: Mapping[int, str], message: str = "", hint: str | None = None) -> None:
        super().__init__(message or "; ".join(f"item {number}: {why}" for number, why in reasons.items()), hint=hint)
        self.reasons = dict(reasons)

    def about(self, subject: str, name: Callable[[int], str]) -> BadItemsError:
        """The same error in the words of whoever knows the items.

        Args:
            subject: What they belong to.
            name: What the item of a number is called there.
        """
        named = [f"{name(number)}: {why}" for number, why in list(self.reasons.items())[:_TOLD]]
        more = f"; and {len(self.reasons) - _TOLD:,} more" if len(self.reasons) > _TOLD else ""
        return BadItemsError(self.reasons, f"{subject}, {'; '.join(named)}{more}.")


def encode_with(embedder: Embedder, batch_tokens: int | None) -> Encode:
    """An embedder of ours as `Encode`. It raises `BadItemsError` for all items at once that it can't take."""

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        bad: dict[int, str] = {}
        vectors: Vectors = embedder.encode(items, instruction, images, batch_tokens=batch_tokens, bad=bad)
        if bad:
            raise BadItemsError(
                {number: reason.removeprefix(f"Item {number}: ") for number, reason in sorted(bad.items())}
            )
        return vectors

    return encode


@dataclass(frozen=True, slots=True)
class Encoder:
    """Something that turns items into unit vectors.

    Attributes:
        digest: Names its weights and settings; vectors are kept under it.
        encode: See `Encode`.
        needs: Modalities that both sides of a task must have.
        view: What of an item it sees.
        instructed: Whether it is given the instruction of queries.
    """

    digest: str
    encode: Encode
    needs: frozenset[str] = frozenset()
    view: View = as_given
    instructed: bool = True

    def seeing(self, view: View) -> Encoder:
        """The same encoder, given less of each item. What is left is a content as any other: vectors are shared."""
        return replace(self, view=view)


class EncodedSide(NamedTuple):
    """One side of a task, as an encoder sees it.

    Attributes:
        name: Of the task and the side, for errors.
        digests: [n] of what it sees.
        space: Where the vectors are kept.
        encode: ``(items, where their pictures are) -> float32 [n, d]``.
    """

    name: str
    side: Side[Query] | Side[Document]
    digests: Digests
    space: VectorSpace
    encode: Callable[[Sequence[Item], Images | None], Vectors]


class VectorSystem(ABC):
    """Exact search over vectors; what they are of and who makes them is told by `parts`."""

    __slots__ = ()
    name: str

    @abstractmethod
    def applies_to(self, card: TaskCard) -> bool:
        """See `System`."""

    @abstractmethod
    def parts(self, task: NumberedTask) -> tuple[EncodedSide, EncodedSide]:
        """Queries and documents."""

    def missing(self, tasks: Sequence[NumberedTask]) -> int:
        """Distinct contents of the tasks that are not in the store yet."""
        wanted: dict[VectorSpace, list[Digests]] = {}
        for part in (part for task in tasks for part in self.parts(task)):
            wanted.setdefault(part.space, []).append(part.digests)
        return sum(len(space.missing(np.concatenate(digests))) for space, digests in wanted.items())

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Encode every distinct content of the tasks; what is in the store already is skipped."""
        missing = self.missing(tasks)
        # Of few contents the progress over tasks says enough.
        with Progress(f"encode for {self.name}", missing, "contents") if missing > _FEW else nullcontext() as progress:
            for part in (part for task in tasks for part in self.parts(task)):
                part.space.fill(part.digests, self._computing(part, progress))

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        """See `System`."""
        queries, docs = self.parts(task)
        for part in (queries, docs):
            part.space.fill(part.digests, self._computing(part))
        asked = queries.space.take(queries.digests)
        if task.candidates is None:
            scores, rows = search_shards(asked, docs.space.stream(docs.digests), min(depth, len(task.docs)))
            ranking = _without(Ranking(rows, scores), task.excluded)
        else:
            ranking = _among(asked, docs, task.candidates, depth)
        return QueryScores(per_query(ranking.rows, task.judgements, metrics), ranking)

    @staticmethod
    def _computing(part: EncodedSide, progress: Progress | None = None) -> Callable[[Rows], Vectors]:
        def window(rows: Rows) -> Vectors:
            items, images, parts = part.side.window(rows.tolist())
            try:
                vectors = part.encode(items, images)
            except BadItemsError as error:
                ids = part.side.ids
                raise error.about(part.name, lambda item: f"id '{ids[int(rows[item // parts])]}'") from error
            except FoundryError as error:
                raise BadItemsError({}, f"{part.name}: {error}", error.hint) from error
            if progress:
                progress.advance(len(rows))
            return vectors if parts == 1 else _mean(vectors, parts)

        def compute(rows: Rows) -> Vectors:
            found = [window(rows[block.start : block.stop]) for block in blocks(len(rows), part.side.window_rows)]
            return found[0] if len(found) == 1 else np.concatenate(found)

        return compute


@dataclass(frozen=True, slots=True)
class DenseSystem(VectorSystem):
    """Exact search over the vectors of an encoder."""

    name: str
    encoder: Encoder
    store: VectorStore
    only: Callable[[TaskCard], bool] = lambda card: True
    """Further condition on the tasks that it is scored on."""

    def applies_to(self, card: TaskCard) -> bool:
        """See `System`."""
        query, doc = sides(card.task_type)
        return self.encoder.needs <= query and self.encoder.needs <= doc and self.only(card)

    def parts(self, task: NumberedTask) -> tuple[EncodedSide, EncodedSide]:
        """Queries and documents; candidates never carry an instruction."""
        instruction = task.card.instruction if self.encoder.instructed else None
        name = task.card.name
        return (
            self._part(f"{name}, queries", task.queries, instruction),
            self._part(f"{name}, documents", task.docs, None),
        )

    def _part(self, name: str, side: Side[Query] | Side[Document], instruction: str | None) -> EncodedSide:
        def encode(items: Sequence[Item], images: Images | None) -> Vectors:
            return self.encoder.encode([self.encoder.view(item) for item in items], instruction, images)

        space = self.store.space(self.encoder.digest, instruction)
        return EncodedSide(name, side, side.digests(self.encoder.view), space, encode)


def _mean(vectors: Vectors, parts: int) -> Vectors:
    """[n, d] unit means of [n * parts, d]."""
    means = vectors.reshape(-1, parts, vectors.shape[1]).mean(axis=1)
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _without(ranking: Ranking, excluded: Ints | None) -> Ranking:
    """The ranking with one document less for each query that has an excluded one."""
    if excluded is None:
        return ranking
    hidden = (ranking.rows == excluded[:, None]) & (excluded[:, None] >= 0)
    order = np.argsort(hidden, axis=1, kind="stable")
    rows = np.where(np.take_along_axis(hidden, order, axis=1), -1, np.take_along_axis(ranking.rows, order, axis=1))
    return Ranking(rows, np.take_along_axis(ranking.scores, order, axis=1))


def _among(asked: Vectors, docs: EncodedSide, candidates: Sequence[Ints], depth: int) -> Ranking:
    """Each query ranks its own candidates; ties fall to the lower row, as in a search."""
    width = min(depth, max(map(len, candidates)))
    rows = np.full((len(asked), width), -1, np.int64)
    scores = np.full((len(asked), width), -np.inf, np.float32)
    for query, among in enumerate(map(np.unique, candidates)):
        found = docs.space.take(docs.digests[among]) @ asked[query]
        best = np.argsort(-found, kind="stable")[:width]
        rows[query, : len(best)], scores[query, : len(best)] = among[best], found[best]
    return Ranking(rows, scores)
