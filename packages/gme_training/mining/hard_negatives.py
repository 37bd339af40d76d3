"""Hard negatives: items that the model of stage 1 takes for the answer of a query, and that are not.

As ANCE (Xiong et al. 2021) and GME: the candidates nearest to a query, without its positives and their look-alikes;
and, if there is a teacher, without those that it finds nearly as similar as the positive. Knows vectors and examples;
not how either is trained on.
"""

from __future__ import annotations

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
REJECTED_BY_TEACHER = "above the teacher's share"
"""The reason, in ``mining.json``, of candidates that `TeacherConfig.relative_margin` leaves out."""


@dataclass(frozen=True, slots=True)
class QueryCosines:
    """A model's cosines of one query with its candidates and with its positive."""

    candidates: list[float]
    positive: float


@dataclass(frozen=True, slots=True)
class MinedNegatives:
    """The hard negatives of one example.

    Attributes:
        row: The example.
        items: The negatives, nearest first; fewer than `num_negatives` where too few candidates are left.
        scores: Their cosines with the query.
        positive: The cosine of the positive with the query.
        rejected: The number of nearer candidates that were rejected, by reason.
        teacher: The teacher's cosines with `items` and the positive, if there is a teacher.
    """

    row: int
    items: tuple[Item, ...]
    scores: tuple[float, ...]
    positive: float
    rejected: Mapping[str, int]
    teacher: QueryCosines | None = None


@dataclass(frozen=True, slots=True)
class CachedEncoder:
    """A model whose vectors are stored on disk, so that a killed run does not encode them again.

    Attributes:
        embedder: The model.
        name: Identifies the model's weights in the store.
        images: The pictures of the items.
        store: The vectors on disk.
        batch_tokens: The number of tokens that are encoded in one forward.
    """

    embedder: Embedder
    name: str
    images: Images
    store: EmbeddingStore
    batch_tokens: int

    def encode(self, items: Sequence[Item], instruction: str | None, label: str) -> Vectors:
        """Returns the vectors of `items`, [items, d]."""
        keys = [sha256_json([item.text, item.image, instruction]) for item in items]

        def compute(missing: list[int]) -> Vectors:
            return self.embedder.encode(
                [items[number] for number in missing],
                instruction,
                self.images,
                batch_tokens=self.batch_tokens,
                progress=label,
            )

        return self.store.encode(self.name, keys, compute)

    def encode_queries(self, catalog: Catalog, rows: Ints, label: str) -> Vectors:
        """Returns the vectors of the queries of `rows`, [rows, d]."""
        if not len(rows):
            raise ValueError("no queries")
        # Queries of one instruction are encoded together: they share the prompt's prefix.
        instructions = [catalog.examples[row].instruction for row in rows]
        vectors: Vectors | None = None
        for instruction in sorted(set(instructions), key=str):
            positions = [position for position, other in enumerate(instructions) if other == instruction]
            items = [catalog.items[catalog.query[rows[position]]] for position in positions]
            encoded = self.encode(items, instruction, label)
            if vectors is None:
                vectors = np.empty((len(rows), encoded.shape[1]), dtype=np.float32)
            vectors[positions] = encoded
        assert vectors is not None  # noqa: S101 - there are rows, so there is an instruction
        return vectors


class Miner:
    """Finds hard negatives, source by source.

    Args:
        embedder: The model of stage 1.
        encoder_name: Identifies its weights in the store.
        images: The pictures of the examples.
        store: Keeps the vectors of both models through a kill.
        config: What to mine.

    Raises:
        FoundryError: The config names a teacher that is no model.
    """

    def __init__(
        self, embedder: Embedder, encoder_name: str, images: Images, store: EmbeddingStore, config: MiningConfig
    ) -> None:
        self._config = config
        self._student = CachedEncoder(embedder, encoder_name, images, store, config.batch_tokens)
        self._teacher: CachedEncoder | None = None
        if config.teacher:
            teacher = _load_teacher(config.teacher)
            # Stored under the digest of the weights: a run that resumes must not mix the vectors of two models.
            name = sha256_json(["teacher", teacher.source.digest])
            self._teacher = CachedEncoder(teacher, name, images, store, config.batch_tokens)

    def mine(self, catalog: Catalog, source: str) -> list[MinedNegatives]:
        """Returns the hard negatives of a sample of the examples of a source; the pool are the source's positives."""
        source_rows = catalog.rows(source).all()
        pool = np.unique(catalog.positive[source_rows])
        count = self._config.queries or len(source_rows)
        rows = np.sort(np.random.default_rng(self._config.seed).permutation(source_rows)[:count])
        queries = self._student.encode_queries(catalog, rows, f"mine {source}: queries")
        label = f"mine {source}: candidates"
        vectors = self._student.encode([catalog.items[i] for i in pool], None, label)
        scores, nearest = search(queries, vectors, min(self._config.range_max, len(pool)))
        positive_scores = (queries * vectors[np.searchsorted(pool, catalog.positive[rows])]).sum(1)
        candidates = pool[nearest]
        by_student = [
            QueryCosines(of_candidates, positive)
            for of_candidates, positive in zip(scores.tolist(), positive_scores.tolist(), strict=True)
        ]
        by_teacher = self._teacher_scores(catalog, rows, candidates, source)
        return [
            self._select(catalog, source, row, items, student, teacher)
            for row, items, student, teacher in zip(
                rows.tolist(), candidates.tolist(), by_student, by_teacher, strict=True
            )
        ]

    def _teacher_scores(
        self, catalog: Catalog, rows: Ints, candidates: Ints, source: str
    ) -> Sequence[QueryCosines | None]:
        """Returns the teacher's scores of the `candidates`, [rows, k], of each row; it encodes no other items."""
        if self._teacher is None:
            return [None] * len(rows)
        positives = catalog.positive[rows]
        encoded = np.unique(np.concatenate([candidates.ravel(), positives]))
        queries = self._teacher.encode_queries(catalog, rows, f"mine {source}: queries, teacher")
        label = f"mine {source}: candidates, teacher"
        vectors = self._teacher.encode([catalog.items[i] for i in encoded], None, label)
        scores = []
        for query, items in zip(queries, np.column_stack([positives, candidates]), strict=True):
            positive, *others = (vectors[np.searchsorted(encoded, items)] @ query).tolist()
            scores.append(QueryCosines(others, positive))
        return scores

    def _select(
        self,
        catalog: Catalog,
        source: str,
        row: int,
        items: list[int],
        student: QueryCosines,
        teacher: QueryCosines | None,
    ) -> MinedNegatives:
        """Takes the nearest candidates that are not rejected, until there are enough."""
        config = self._config
        false_negatives = catalog.false_negatives(row, mask_same_group=source in config.mask_same_group)
        limit = float("inf") if config.absolute_margin is None else student.positive - config.absolute_margin
        teacher_limit = float("inf")
        if teacher and config.teacher:
            teacher_limit = (1 - config.teacher.relative_margin) * teacher.positive
        selected: list[int] = []
        rejected: Counter[str] = Counter()
        for position, item in enumerate(items):
            if len(selected) == config.num_negatives:
                break
            if item in false_negatives:
                rejected["positive" if item == catalog.positive[row] else "known or look-alike"] += 1
            elif rejected["skip"] < config.range_min:
                rejected["skip"] += 1
            elif student.candidates[position] > limit:
                rejected["above margin"] += 1
            elif teacher and teacher.candidates[position] > teacher_limit:
                rejected[REJECTED_BY_TEACHER] += 1
            else:
                selected.append(position)
        return MinedNegatives(
            row,
            tuple(catalog.items[items[position]] for position in selected),
            tuple(student.candidates[position] for position in selected),
            student.positive,
            rejected,
            teacher and QueryCosines([teacher.candidates[position] for position in selected], teacher.positive),
        )


def _load_teacher(config: TeacherConfig) -> Embedder:
    try:
        return Embedder.load(config.model, dtype=native_precision("bfloat16", "cpu"), revision=config.revision)
    except FoundryError as error:
        raise FoundryError(f"mining.teacher.model: {error}", hint=error.hint, exit_code=error.exit_code) from error


def add_mined_negatives(catalog: Catalog, mined: Sequence[MinedNegatives], num_negatives: int) -> Iterator[Example]:
    """Yields the examples in their order, the mined negatives after those that an example has already.

    An example ends up with at most `num_negatives`, or with as many as it had if these are more.
    """
    items_of_row = {negatives.row: negatives.items for negatives in mined}
    for row, example in enumerate(catalog.examples):
        distinct = dict.fromkeys([*example.negatives, *items_of_row.get(row, ())])
        yield replace(example, negatives=tuple(distinct)[: max(num_negatives, len(example.negatives))])
