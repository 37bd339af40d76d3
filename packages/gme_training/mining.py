"""Hard negatives: what the model of stage 1 takes for the answer and is not.

As ANCE (Xiong et al. 2021) and GME: candidates nearest to a query, without its positives and their look-alikes. Knows
vectors and examples; not how either is trained on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.images import ImageStore
from gme_data.items import Item
from gme_embedder.embedder import Embedder
from gme_embedder.index import search
from gme_embedder.store import EmbeddingStore
from gme_training.catalog import Catalog, Ints, false_negatives
from gme_training.config import MiningConfig

Vectors = NDArray[np.float32]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mined:
    """The hard negatives of one example.

    Attributes:
        row: The example.
        items: Nearest first; fewer than asked for where the pool is small.
        scores: Their cosines with the query.
        positive: That of the positive.
        passed: Candidates that were passed over on the way, by reason.
    """

    row: int
    items: tuple[Item, ...]
    scores: tuple[float, ...]
    positive: float
    passed: Mapping[str, int]


class Miner:
    """Finds negatives source by source.

    Args:
        embedder: The model of stage 1.
        encoder_name: Names its weights in the store.
        images: Pictures of the examples.
        store: Keeps vectors through a kill.
    """

    def __init__(
        self, embedder: Embedder, encoder_name: str, images: ImageStore, store: EmbeddingStore, config: MiningConfig
    ) -> None:
        self._embedder, self._name, self._images, self._store = embedder, encoder_name, images, store
        self._config = config

    def mine(self, catalog: Catalog, source: str) -> list[Mined]:
        """What was found for drawn examples of a source."""
        everything = catalog.rows_of_source[source]
        pool = np.unique(catalog.positive[everything])
        rows = self._draw(everything)
        queries = self._encode_queries(catalog, rows, source)
        candidates = self._encode([catalog.items[i] for i in pool], None, f"mine {source}: candidates")
        scores, nearest = search(queries, candidates, min(self._config.top_k, len(pool)))
        own = (queries * candidates[np.searchsorted(pool, catalog.positive[rows])]).sum(1)
        same_group = source in self._config.mask_same_group
        return [
            self._keep(catalog, row, float(own[place]), pool[nearest[place]], scores[place], same_group)
            for place, row in enumerate(rows.tolist())
        ]

    def _draw(self, rows: Ints) -> Ints:
        count = self._config.queries or len(rows)
        return np.sort(np.random.default_rng(self._config.seed).permutation(rows)[:count])

    def _keep(
        self, catalog: Catalog, row: int, positive: float, nearest: Ints, scores: Vectors, same_group: bool
    ) -> Mined:
        """Walk down the candidates until there are enough; each that is passed over has its reason."""
        hidden = false_negatives(catalog, row, mask_same_group=same_group)
        limit = float("inf") if self._config.margin is None else positive + self._config.margin
        kept: list[int] = []
        passed: Counter[str] = Counter()
        skipped = 0
        for place, (item, score) in enumerate(zip(nearest.tolist(), scores.tolist(), strict=True)):
            if len(kept) == self._config.negatives:
                break
            if item in hidden:
                passed["positive" if item == catalog.positive[row] else "known or look-alike"] += 1
            elif skipped < self._config.skip:
                skipped += 1
                passed["skip"] += 1
            elif score > limit:
                passed["above margin"] += 1
            else:
                kept.append(place)
        items = tuple(catalog.items[nearest[place]] for place in kept)
        return Mined(row, items, tuple(float(scores[place]) for place in kept), positive, passed)

    def _encode_queries(self, catalog: Catalog, rows: Ints, source: str) -> Vectors:
        """[rows, d]; queries of one instruction are encoded together."""
        instructions = [catalog.examples[row].instruction for row in rows]
        vectors: Vectors | None = None
        for instruction in sorted(set(instructions), key=str):
            places = [place for place, found in enumerate(instructions) if found == instruction]
            items = [catalog.items[catalog.query[rows[place]]] for place in places]
            found = self._encode(items, instruction, f"mine {source}: queries")
            if vectors is None:
                vectors = np.empty((len(rows), found.shape[1]), dtype=np.float32)
            vectors[places] = found
        if vectors is None:
            raise ValueError(f"source {source} has no examples")
        return vectors

    def _encode(self, items: Sequence[Item], instruction: str | None, label: str) -> Vectors:
        keys = [sha256_json([item.text, item.image, instruction]) for item in items]

        def compute(missing: list[int]) -> Vectors:
            return self._embedder.encode(
                [items[place] for place in missing],
                instruction,
                self._images,
                batch_tokens=self._config.batch_tokens,
                progress=label,
            )

        return self._store.encode(self._name, keys, compute)


def with_negatives(catalog: Catalog, mined: Sequence[Mined], negatives: int) -> Iterator[Example]:
    """The examples in their order; mined negatives follow those that an example has of its own."""
    found = {one.row: one.items for one in mined}
    for row, example in enumerate(catalog.examples):
        own = dict.fromkeys([*example.negatives, *found.get(row, ())])
        yield replace(example, negatives=tuple(own)[: max(negatives, len(example.negatives))])
