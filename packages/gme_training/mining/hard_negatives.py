"""Hard negatives: what the model of stage 1 takes for the answer and is not.

As ANCE (Xiong et al. 2021) and GME: candidates nearest to a query, without its positives and their look-alikes; and, if
a teacher is asked, without those it finds nearly as good as the positive. Knows vectors and examples; not how either is
trained on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.images import Images
from gme_data.items import Item
from gme_embedder.embedder import Embedder
from gme_embedder.modeling.precision import native_precision
from gme_embedder.vectors.exact import search
from gme_embedder.vectors.store import EmbeddingStore
from gme_training.config import MiningConfig, TeacherConfig
from gme_training.data.catalog import Catalog, Ints

Vectors = NDArray[np.float32]
ABOVE_TEACHER = "above the teacher's share"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model says of one query: its cosines with candidates and with the positive."""

    candidates: list[float]
    positive: float


@dataclass(frozen=True, slots=True)
class Mined:
    """The hard negatives of one example.

    Attributes:
        row: The example.
        items: Nearest first; fewer than asked for where the pool is small.
        scores: Their cosines with the query.
        positive: That of the positive.
        passed: Candidates that were passed over on the way, by reason.
        teacher: The teacher's cosines with `items` and the positive, if there was one.
    """

    row: int
    items: tuple[Item, ...]
    scores: tuple[float, ...]
    positive: float
    passed: Mapping[str, int]
    teacher: Opinion | None = None


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model whose vectors outlive a kill.

    Attributes:
        name: Names its weights in the store.
        images: Pictures of the items.
        batch_tokens: Tokens encoded at once.
    """

    embedder: Embedder
    name: str
    images: Images
    store: EmbeddingStore
    batch_tokens: int

    def encode(self, items: Sequence[Item], instruction: str | None, label: str) -> Vectors:
        """[items, d]."""
        keys = [sha256_json([item.text, item.image, instruction]) for item in items]

        def compute(missing: list[int]) -> Vectors:
            return self.embedder.encode(
                [items[place] for place in missing],
                instruction,
                self.images,
                batch_tokens=self.batch_tokens,
                progress=label,
            )

        return self.store.encode(self.name, keys, compute)

    def encode_queries(self, catalog: Catalog, rows: Ints, label: str) -> Vectors:
        """[rows, d]; queries of one instruction are encoded together."""
        instructions = [catalog.examples[row].instruction for row in rows]
        vectors: Vectors | None = None
        for instruction in sorted(set(instructions), key=str):
            places = [place for place, found in enumerate(instructions) if found == instruction]
            items = [catalog.items[catalog.query[rows[place]]] for place in places]
            found = self.encode(items, instruction, label)
            if vectors is None:
                vectors = np.empty((len(rows), found.shape[1]), dtype=np.float32)
            vectors[places] = found
        if vectors is None:
            raise ValueError("no queries")
        return vectors


class Miner:
    """Finds negatives source by source.

    Args:
        embedder: The model of stage 1.
        encoder_name: Names its weights in the store.
        images: Pictures of the examples.
        store: Keeps vectors through a kill, the teacher's apart.

    Raises:
        FoundryError: The config names a teacher that is no model.
    """

    def __init__(
        self, embedder: Embedder, encoder_name: str, images: Images, store: EmbeddingStore, config: MiningConfig
    ) -> None:
        self._config = config
        self._student = Encoder(embedder, encoder_name, images, store, config.batch_tokens)
        self._teacher: Encoder | None = None
        if config.teacher:
            teacher = _load_teacher(config.teacher)
            self._teacher = Encoder(teacher, _name_of(teacher), images, store, config.batch_tokens)

    def mine(self, catalog: Catalog, source: str) -> list[Mined]:
        """What was found for drawn examples of a source."""
        everything = catalog.rows(source).all()
        pool = np.unique(catalog.positive[everything])
        rows = self._draw(everything)
        queries = self._student.encode_queries(catalog, rows, f"mine {source}: queries")
        label = f"mine {source}: candidates"
        candidates = self._student.encode([catalog.items[i] for i in pool], None, label)
        scores, nearest = search(queries, candidates, min(self._config.top_k, len(pool)))
        own = (queries * candidates[np.searchsorted(pool, catalog.positive[rows])]).sum(1)
        found = pool[nearest]
        students = [Opinion(row, positive) for row, positive in zip(scores.tolist(), own.tolist(), strict=True)]
        teachers = self._ask_teacher(catalog, rows, found, source)
        each = zip(rows.tolist(), found.tolist(), students, teachers, strict=True)
        return [self._keep(catalog, source, row, items, student, teacher) for row, items, student, teacher in each]

    def _draw(self, rows: Ints) -> Ints:
        count = self._config.queries or len(rows)
        return np.sort(np.random.default_rng(self._config.seed).permutation(rows)[:count])

    def _ask_teacher(self, catalog: Catalog, rows: Ints, found: Ints, source: str) -> Sequence[Opinion | None]:
        """The teacher's opinion on the candidates `found` [rows, k] of each row; it encodes no others."""
        if self._teacher is None:
            return [None] * len(rows)
        own = catalog.positive[rows]
        wanted = np.unique(np.concatenate([found.ravel(), own]))
        queries = self._teacher.encode_queries(catalog, rows, f"mine {source}: queries, teacher")
        label = f"mine {source}: candidates, teacher"
        vectors = self._teacher.encode([catalog.items[i] for i in wanted], None, label)
        opinions = []
        for query, items in zip(queries, np.column_stack([own, found]), strict=True):
            positive, *others = (vectors[np.searchsorted(wanted, items)] @ query).tolist()
            opinions.append(Opinion(others, positive))
        return opinions

    def _keep(
        self, catalog: Catalog, source: str, row: int, items: list[int], student: Opinion, teacher: Opinion | None
    ) -> Mined:
        """Walk down the candidates until there are enough; each that is passed over has its reason."""
        hidden = catalog.false_negatives(row, mask_same_group=source in self._config.mask_same_group)
        limit = float("inf") if self._config.margin is None else student.positive + self._config.margin
        kept: list[int] = []
        passed: Counter[str] = Counter()
        for place, item in enumerate(items):
            if len(kept) == self._config.negatives:
                break
            if item in hidden:
                passed["positive" if item == catalog.positive[row] else "known or look-alike"] += 1
            elif passed["skip"] < self._config.skip:
                passed["skip"] += 1
            elif student.candidates[place] > limit:
                passed["above margin"] += 1
            elif teacher and self._too_near(place, teacher):
                passed[ABOVE_TEACHER] += 1
            else:
                kept.append(place)
        return Mined(
            row,
            tuple(catalog.items[items[place]] for place in kept),
            tuple(student.candidates[place] for place in kept),
            student.positive,
            passed,
            teacher and Opinion([teacher.candidates[place] for place in kept], teacher.positive),
        )

    def _too_near(self, place: int, teacher: Opinion) -> bool:
        assert self._config.teacher is not None  # noqa: S101 - it was asked
        return teacher.candidates[place] > self._config.teacher.max_share * teacher.positive


def _load_teacher(config: TeacherConfig) -> Embedder:
    try:
        return Embedder.load(config.model, dtype=native_precision("bfloat16", "cpu"), revision=config.revision)
    except FoundryError as error:
        raise FoundryError(f"mining.teacher.model: {error}", hint=error.hint, exit_code=error.exit_code) from error


def _name_of(teacher: Embedder) -> str:
    """What its vectors are kept under: a run that goes on must not mix those of two models."""
    return sha256_json(["teacher", teacher.source.digest])


def with_negatives(catalog: Catalog, mined: Sequence[Mined], negatives: int) -> Iterator[Example]:
    """The examples in their order; mined negatives follow those that an example has of its own."""
    found = {one.row: one.items for one in mined}
    for row, example in enumerate(catalog.examples):
        own = dict.fromkeys([*example.negatives, *found.get(row, ())])
        yield replace(example, negatives=tuple(own)[: max(negatives, len(example.negatives))])
