"""Systems that can be scored: anything that ranks the documents of a task, or knows its expected score.

`DenseSystem` makes a system of an encoder: it encodes each distinct content once, whichever tasks contain it, and
searches exactly, with a block of documents in memory at a time. Knows no metric's meaning, and no particular model.
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
from gme_embedder.vectors.exact import search_shards
from umrb.data.loading import LoadedTask
from umrb.data.sides import Digests, Side, View, blocks, unchanged
from umrb.data.tasks import NumberedTask
from umrb.metrics import Floats, Ints, per_query
from umrb.systems.vectors import Rows, Vectors, VectorSpace, VectorStore

if TYPE_CHECKING:
    from gme_embedder.embedder import Embedder

_PROGRESS_FROM = 2_000
"""Encoding reports its own progress from this many contents on; below it the progress over tasks is enough."""
_MAX_NAMED_ITEMS = 3
"""An error names at most this many items, and counts the others."""


class Ranking(NamedTuple):
    """The result of a search, best first.

    Attributes:
        rows: [q, k] document numbers; -1 where nothing was returned.
        scores: [q, k] their scores.
    """

    rows: Ints
    scores: NDArray[np.float32]


class QueryScores(NamedTuple):
    """The scores of a system on one task, query by query.

    Attributes:
        metrics: [q] values by the name of the metric.
        ranking: The ranking behind them; None for a system that knows expectations only.
    """

    metrics: dict[str, Floats]
    ranking: Ranking | None


class System(Protocol):
    """Anything that has a row in a table of scores."""

    @property
    def name(self) -> str:
        """The system's name in tables."""
        ...

    def applies_to(self, card: TaskCard) -> bool:
        """Whether this system can encode both sides of a task."""
        ...

    def missing(self, tasks: Sequence[NumberedTask]) -> int:
        """Count the contents of the tasks that `prepare` would encode."""
        ...

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Do the part of the work that processes can share, such as encoding."""
        ...

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        """Score every query by `metrics`, from its first `depth` documents at most."""
        ...


SystemFactory: TypeAlias = Callable[[LoadedTask], System]
"""Makes the system that scores a task. Models of mteb must know the task, for they may prompt each differently."""


def sides(task_type: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the modalities of query and documents: ``"IT->T"`` -> ``({"I", "T"}, {"T"})``; a page is a picture."""
    query, document = modalities_of(task_type)
    return frozenset(query), frozenset(document)


Encode: TypeAlias = Callable[[Sequence[Item], str | None, Images | None], Vectors]
"""A function ``(items, instruction, store of their pictures) -> float32 [n, d]`` of unit vectors."""


class BadItemsError(FoundryError):
    """Items can't be encoded: some of them, or all of them because of their instruction.

    Attributes:
        reasons: Why, by the number of the item among those of the call; empty if the error is about no single item.
    """

    def __init__(self, reasons: Mapping[int, str], message: str = "", hint: str | None = None) -> None:
        super().__init__(message or "; ".join(f"item {number}: {why}" for number, why in reasons.items()), hint=hint)
        self.reasons = dict(reasons)

    def about(self, subject: str, name: Callable[[int], str]) -> BadItemsError:
        """Return the same error with the names that the caller has for the items.

        Args:
            subject: What the items belong to.
            name: Returns the caller's name of an item by its number.
        """
        named = [f"{name(number)}: {why}" for number, why in list(self.reasons.items())[:_MAX_NAMED_ITEMS]]
        others = len(self.reasons) - _MAX_NAMED_ITEMS
        more = f"; and {others:,} more" if others > 0 else ""
        return BadItemsError(self.reasons, f"{subject}, {'; '.join(named)}{more}.")


def encode_with(embedder: Embedder, batch_tokens: int | None) -> Encode:
    """Wrap an embedder as `Encode`. The function raises `BadItemsError` once, for all items that can't be encoded."""

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        bad: dict[int, str] = {}
        vectors: Vectors = embedder.encode(items, instruction, images, batch_tokens=batch_tokens, bad=bad)
        if bad:
            # The embedder numbers the items of one call; whoever catches this knows their ids.
            raise BadItemsError(
                {number: reason.removeprefix(f"Item {number}: ") for number, reason in sorted(bad.items())}
            )
        return vectors

    return encode


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model that turns items into unit vectors.

    Attributes:
        digest: Names its weights and settings; its vectors are stored under it.
        encode: See `Encode`.
        needs: Modalities that both sides of a task must have.
        view: Reduces an item to what the encoder sees of it.
        instructed: Whether queries are encoded with their instruction.
    """

    digest: str
    encode: Encode
    needs: frozenset[str] = frozenset()
    view: View = unchanged
    instructed: bool = True

    def seeing(self, view: View) -> Encoder:
        """Return the same encoder with another view of the items."""
        # The digest stays: a reduced item is a content like any other, so its vectors are shared in the store.
        return replace(self, view=view)


class EncodedSide(NamedTuple):
    """One side of a task, as an encoder sees it.

    Attributes:
        name: Name of task and side, for errors.
        contents: The rows.
        digests: [n] digests of what the encoder sees of each row.
        space: Store of the vectors.
        encode: ``(items, store of their pictures) -> float32 [n, d]``.
    """

    name: str
    contents: Side[Query] | Side[Document]
    digests: Digests
    space: VectorSpace
    encode: Callable[[Sequence[Item], Images | None], Vectors]


class VectorSystem(ABC):
    """Exact search over vectors; subclasses say in `encoded_sides` how the rows of each side are encoded."""

    __slots__ = ()
    name: str

    @abstractmethod
    def applies_to(self, card: TaskCard) -> bool:
        """See `System`."""

    @abstractmethod
    def encoded_sides(self, task: NumberedTask) -> tuple[EncodedSide, EncodedSide]:
        """Return queries and documents."""

    def missing(self, tasks: Sequence[NumberedTask]) -> int:
        """Count the distinct contents of the tasks that are not in the store yet."""
        # Per space, so that a content of several tasks counts once.
        digests: dict[VectorSpace, list[Digests]] = {}
        for side in (side for task in tasks for side in self.encoded_sides(task)):
            digests.setdefault(side.space, []).append(side.digests)
        return sum(len(space.missing(np.concatenate(of_space))) for space, of_space in digests.items())

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Encode every distinct content of the tasks; what is in the store already is skipped."""
        missing = self.missing(tasks)
        reporting = missing > _PROGRESS_FROM
        with Progress(f"encode for {self.name}", missing, "contents") if reporting else nullcontext() as progress:
            for side in (side for task in tasks for side in self.encoded_sides(task)):
                side.space.fill(side.digests, self._encode_rows_of(side, progress))

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        """See `System`."""
        queries, docs = self.encoded_sides(task)
        for side in (queries, docs):
            # After `prepare` this finds all vectors in the store; without it, the system encodes here.
            side.space.fill(side.digests, self._encode_rows_of(side))
        query_vectors = queries.space.take(queries.digests)
        if task.candidates is None:
            shards = docs.space.stream(docs.digests)
            scores, rows = search_shards(query_vectors, shards, min(depth, len(task.docs)))
            ranking = _without_excluded(Ranking(rows, scores), task.excluded)
        else:
            ranking = _rank_candidates(query_vectors, docs, task.candidates, depth)
        return QueryScores(per_query(ranking.rows, task.judgements, metrics), ranking)

    @staticmethod
    def _encode_rows_of(side: EncodedSide, progress: Progress | None = None) -> Callable[[Rows], Vectors]:
        """Return the function that encodes rows of a side for the store, and names bad items by their ids."""

        def encode_window(rows: Rows) -> Vectors:
            items, images, items_per_row = side.contents.window(rows.tolist())
            try:
                vectors = side.encode(items, images)
            except BadItemsError as error:
                ids = side.contents.ids
                raise error.about(side.name, lambda item: f"id '{ids[int(rows[item // items_per_row])]}'") from error
            except FoundryError as error:
                raise BadItemsError({}, f"{side.name}: {error}", error.hint) from error
            if progress:
                progress.advance(len(rows))
            return vectors if items_per_row == 1 else _mean_of_rows(vectors, items_per_row)

        def encode(rows: Rows) -> Vectors:
            # Window by window: the pictures of a whole chunk of the store would not fit into memory.
            windows = blocks(len(rows), side.contents.window_rows)
            vectors = [encode_window(rows[window.start : window.stop]) for window in windows]
            return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)

        return encode


@dataclass(frozen=True, slots=True)
class DenseSystem(VectorSystem):
    """Exact search over the vectors of an encoder."""

    name: str
    encoder: Encoder
    store: VectorStore
    only: Callable[[TaskCard], bool] = lambda card: True
    """A further condition on the tasks that the system is scored on."""

    def applies_to(self, card: TaskCard) -> bool:
        """See `System`."""
        query, doc = sides(card.task_type)
        return self.encoder.needs <= query and self.encoder.needs <= doc and self.only(card)

    def encoded_sides(self, task: NumberedTask) -> tuple[EncodedSide, EncodedSide]:
        """Return queries and documents; only queries carry the instruction."""
        instruction = task.card.instruction if self.encoder.instructed else None
        name = task.card.name
        return (
            self._encoded_side(f"{name}, queries", task.queries, instruction),
            self._encoded_side(f"{name}, documents", task.docs, None),
        )

    def _encoded_side(self, name: str, side: Side[Query] | Side[Document], instruction: str | None) -> EncodedSide:
        def encode(items: Sequence[Item], images: Images | None) -> Vectors:
            return self.encoder.encode([self.encoder.view(item) for item in items], instruction, images)

        space = self.store.space(self.encoder.digest, instruction)
        return EncodedSide(name, side, side.digests(self.encoder.view), space, encode)


def _mean_of_rows(vectors: Vectors, items_per_row: int) -> Vectors:
    """[n, d] unit means of the vectors [n * items_per_row, d] of each row's items."""
    means = vectors.reshape(-1, items_per_row, vectors.shape[1]).mean(axis=1)
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _without_excluded(ranking: Ranking, excluded: Ints | None) -> Ranking:
    """The ranking without the document [q] that each query must not return; -1 takes its place at the end."""
    if excluded is None:
        return ranking
    is_excluded = (ranking.rows == excluded[:, None]) & (excluded[:, None] >= 0)
    # A stable sort moves the excluded document behind all others and leaves their order.
    order = np.argsort(is_excluded, axis=1, kind="stable")
    moved_rows = np.take_along_axis(ranking.rows, order, axis=1)
    rows = np.where(np.take_along_axis(is_excluded, order, axis=1), -1, moved_rows)
    return Ranking(rows, np.take_along_axis(ranking.scores, order, axis=1))


def _rank_candidates(queries: Vectors, docs: EncodedSide, candidates: Sequence[Ints], depth: int) -> Ranking:
    """Rank the candidates of each query alone; ties fall to the lower row, as in a search of the whole pool."""
    width = min(depth, max(map(len, candidates)))
    rows = np.full((len(queries), width), -1, np.int64)
    scores = np.full((len(queries), width), -np.inf, np.float32)
    for query, candidate_rows in enumerate(map(np.unique, candidates)):
        products = docs.space.take(docs.digests[candidate_rows]) @ queries[query]
        best = np.argsort(-products, kind="stable")[:width]
        rows[query, : len(best)], scores[query, : len(best)] = candidate_rows[best], products[best]
    return Ranking(rows, scores)
