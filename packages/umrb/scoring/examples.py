"""Writes what a report shows of a scored task while its data are in memory: hits and misses, and some vectors.

So a report needs no data and no model. `umrb.scoring.cards` has the classes that are written.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gme_data.items import pages_of
from gme_data.journal import atomic_write
from gme_data.tasks import Document, Query
from umrb.data.sides import Side
from umrb.data.tasks import NumberedTask
from umrb.metrics import NOT_FOUND, rank_relevant
from umrb.scoring.cards import (
    PAGE_THUMBNAIL_SIZE,
    SIDES,
    THUMBNAIL_SIZE,
    ItemCard,
    RetrievalExample,
    RetrievedDocument,
    make_card,
)
from umrb.systems.base import QueryScores, Ranking, VectorSystem

_EXAMPLES_EACH = 2
"""Hits, and as many misses, that are shown of a task."""
_DOCUMENTS = 5
"""Documents that are shown of a query."""
_MISS_RANK = 10
"""A query counts as a miss if its first relevant document has this rank, from 0, or a later one."""
_SAMPLE = 64
"""Vectors of each side that the plot of the modality gap gets."""


def write_examples(folder: Path, task: NumberedTask, scores: QueryScores, seed: int) -> None:
    """Write ``<task>.json`` with hits and misses; a system without a ranking has none."""
    if scores.ranking is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    first = rank_relevant(scores.ranking.rows, task.judgements).first
    answerable = np.flatnonzero(task.judgements.relevant > 0)
    order = rng.permutation(answerable)
    rows = [*order[first[order] == 0][:_EXAMPLES_EACH], *order[first[order] >= _MISS_RANK][:_EXAMPLES_EACH]]
    examples = [_make_example(task, scores.ranking, int(row), int(first[row])) for row in rows]
    payload = json.dumps([asdict(example) for example in examples], ensure_ascii=False)
    atomic_write(folder / f"{task.card.name}.json", payload.encode())


def write_vector_sample(folder: Path, system: VectorSystem, task: NumberedTask, seed: int) -> None:
    """Write ``<task>.queries.npy`` and ``<task>.docs.npy`` with some vectors of either side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, side in zip(SIDES, system.encoded_sides(task), strict=True):
        rows = np.sort(rng.permutation(len(side.digests))[:_SAMPLE])
        buffer = io.BytesIO()
        np.save(buffer, side.space.take(side.digests[rows]).astype(np.float16), allow_pickle=False)
        atomic_write(folder / f"{task.card.name}.{name}.npy", buffer.getvalue())


def _make_example(task: NumberedTask, ranking: Ranking, row: int, rank: int) -> RetrievalExample:
    """The example of the query `row`, whose first relevant document has `rank` from 0."""
    query_size, doc_size = (
        PAGE_THUMBNAIL_SIZE if is_page else THUMBNAIL_SIZE for is_page in pages_of(task.card.task_type)
    )
    relevant = task.judgements.doc[task.judgements.query == row]
    retrieved = [int(doc) for doc in ranking.rows[row, :_DOCUMENTS] if doc >= 0]
    reachable = [int(doc) for doc in relevant if doc >= 0]
    # One window for the retrieved documents and the expected one, which comes last.
    cards = _cards(task.docs, [*retrieved, *reachable[:1]], doc_size)
    return RetrievalExample(
        task=task.card.name,
        query=_cards(task.queries, [row], query_size)[0],
        found=[
            RetrievedDocument(card, float(score), doc in relevant)
            for card, score, doc in zip(cards, ranking.scores[row], retrieved, strict=False)
        ],
        rank=None if rank == NOT_FOUND else rank + 1,
        answer=cards[-1] if rank >= _MISS_RANK and reachable else None,
    )


def _cards(side: Side[Query] | Side[Document], rows: Sequence[int], size: tuple[int, int]) -> list[ItemCard]:
    items, images, items_per_row = side.window(rows)
    # Of a video the first frame stands for the row.
    return [make_card(item, images, size) for item in items[::items_per_row]]
