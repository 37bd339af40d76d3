"""What can be scored: anything that ranks the documents of a task, or knows its expected score.

`DenseSystem` makes a system of an encoder: it encodes each distinct content once, whichever tasks ask for it, and
searches exactly. Knows no metric's meaning, and no particular model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gme_data.digests import sha256_json
from gme_data.items import Item
from gme_data.progress import Progress
from gme_data.tasks import TaskCard
from gme_embedder.index import search
from gme_embedder.store import EmbeddingStore
from umrb.metrics import Floats, Ints, per_query
from umrb.tasks import NumberedTask

Vectors: TypeAlias = NDArray[np.float32]


class Content(NamedTuple):
    """All that a vector depends on, besides the encoder."""

    item: Item
    instruction: str | None


class Ranking(NamedTuple):
    """What a search returned: [q, k] document positions (-1: nothing), and their scores, best first."""

    rows: Ints
    scores: NDArray[np.float32]


class Outcome(NamedTuple):
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

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Do what is better done once for all of the tasks."""
        ...

    def outcome(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> Outcome:
        """Score every query by `metrics`, from at most `depth` documents each."""
        ...


def sides(task_type: str) -> tuple[frozenset[str], frozenset[str]]:
    """What query and documents are made of: ``"IT->T"`` -> ``({"I", "T"}, {"T"})``; a visual document is a picture."""
    query, _, doc = task_type.replace("VD", "I").partition("->")
    return frozenset(query), frozenset(doc)


def as_given(content: Content) -> Content:
    """The whole content."""
    return content


def text_only(content: Content) -> Content:
    """The text, without picture and instruction: what a frozen text encoder is given."""
    return Content(Item(text=content.item.text), None)


def picture_only(content: Content) -> Content:
    """The picture, without text and instruction: what a frozen picture encoder is given."""
    return Content(Item(image=content.item.image), None)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Something that turns contents into unit vectors.

    Attributes:
        digest: Names its weights and settings; vectors are kept under it.
        needs: Modalities that both sides of a task must have.
        view: What part of a content it sees.
        encode: ``(items, instruction) -> float32 [n, d]``.
    """

    digest: str
    needs: frozenset[str]
    view: Callable[[Content], Content]
    encode: Callable[[Sequence[Item], str | None], Vectors]


@dataclass(frozen=True, slots=True)
class DenseSystem:
    """Exact search over the vectors of an encoder."""

    name: str
    encoder: Encoder
    store: EmbeddingStore

    def applies_to(self, card: TaskCard) -> bool:
        """See `System`."""
        query, doc = sides(card.task_type)
        return self.encoder.needs <= query and self.encoder.needs <= doc

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Encode every distinct content of the tasks; what is in the store already is skipped."""
        groups: dict[str | None, dict[str, Content]] = {}
        for content in self._contents(tasks):
            groups.setdefault(content.instruction, {}).setdefault(content_key(content), content)
        total = sum(len(group) for group in groups.values())
        with Progress(f"encode for {self.name}", total, "contents") as progress:
            for group in groups.values():
                progress.advance(len(group) - self._encode_group(list(group.values()), progress))

    def outcome(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> Outcome:
        """See `System`."""
        docs = self._vectors(_documents(task))
        queries = self._vectors(_queries(task))
        scores, rows = search(queries, docs, min(depth, len(docs)))
        return Outcome(per_query(rows, task.judgements, metrics), Ranking(rows, scores))

    def _contents(self, tasks: Sequence[NumberedTask]) -> Iterator[Content]:
        for task in tasks:
            yield from map(self.encoder.view, _documents(task))
            yield from map(self.encoder.view, _queries(task))

    def _encode_group(self, contents: Sequence[Content], progress: Progress) -> int:
        """Bring contents of one instruction into the store; the number of those that had to be encoded."""
        encoded = 0

        def compute(missing: list[int]) -> Vectors:
            nonlocal encoded
            vectors = self.encoder.encode([contents[i].item for i in missing], contents[0].instruction)
            encoded += len(missing)
            progress.advance(len(missing))
            return vectors

        self.store.encode(self.encoder.digest, [content_key(content) for content in contents], compute)
        return encoded

    def _vectors(self, contents: Sequence[Content]) -> Vectors:
        """[n, d]; all contents of a call carry one instruction. A content met before costs a look-up."""
        seen = [self.encoder.view(content) for content in contents]

        def compute(missing: list[int]) -> Vectors:
            return self.encoder.encode([seen[i].item for i in missing], seen[0].instruction)

        return self.store.encode(self.encoder.digest, [content_key(content) for content in seen], compute)


def _documents(task: NumberedTask) -> list[Content]:
    """Candidates never carry an instruction."""
    return [Content(doc.item, None) for doc in task.docs]


def _queries(task: NumberedTask) -> list[Content]:
    return [Content(query.item, task.card.instruction) for query in task.queries]


def content_key(content: Content) -> str:
    """Digest of a content: equal contents are encoded once, however many documents and tasks hold them."""
    return sha256_json([content.instruction, content.item.text, content.item.image])
