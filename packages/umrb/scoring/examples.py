"""Writes what a report shows of a scored task, while its data are at hand: hits and misses, and some vectors.

So a report needs no data and no model. See `umrb.scoring.cards` for what is written.
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
from umrb.scoring.cards import PAGE_THUMB, SIDES, THUMB, ItemCard, RetrievalExample, RetrievedDocument, make_card
from umrb.systems.base import QueryScores, Ranking, VectorSystem

_EACH, _SHOWN, _MISSED = 2, 5, 10
_SAMPLE = 64
"""Vectors of each side kept for the picture of the modality gap."""


def write_examples(folder: Path, task: NumberedTask, outcome: QueryScores, seed: int) -> None:
    """Write ``<task>.json`` with hits and misses."""
    if outcome.ranking is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    ranks = rank_relevant(outcome.ranking.rows, task.judgements).best
    answered = np.flatnonzero(task.judgements.relevant > 0)
    order = draw.permutation(answered)
    rows = [*order[ranks[order] == 0][:_EACH], *order[ranks[order] >= _MISSED][:_EACH]]
    told = [_tell(task, outcome.ranking, int(row), int(ranks[row])) for row in rows]
    payload = json.dumps([asdict(example) for example in told], ensure_ascii=False)
    atomic_write(folder / f"{task.card.name}.json", payload.encode())


def write_vector_sample(folder: Path, system: VectorSystem, task: NumberedTask, seed: int) -> None:
    """Write ``<task>.queries.npy`` and ``<task>.docs.npy`` with some vectors of either side."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for name, part in zip(SIDES, system.encoded_sides(task), strict=True):
        rows = np.sort(draw.permutation(len(part.digests))[:_SAMPLE])
        buffer = io.BytesIO()
        np.save(buffer, part.space.take(part.digests[rows]).astype(np.float16), allow_pickle=False)
        atomic_write(folder / f"{task.card.name}.{name}.npy", buffer.getvalue())


def _tell(task: NumberedTask, ranking: Ranking, row: int, rank: int) -> RetrievalExample:
    asked_size, size = (PAGE_THUMB if is_page else THUMB for is_page in pages_of(task.card.task_type))
    relevant = task.judgements.doc[task.judgements.query == row]
    shown = [int(doc) for doc in ranking.rows[row, :_SHOWN] if doc >= 0]
    reachable = [int(doc) for doc in relevant if doc >= 0]
    cards = _cards(task.docs, [*shown, *reachable[:1]], size)
    return RetrievalExample(
        task=task.card.name,
        query=_cards(task.queries, [row], asked_size)[0],
        found=[
            RetrievedDocument(card, float(score), doc in relevant)
            for card, score, doc in zip(cards, ranking.scores[row], shown, strict=False)
        ],
        rank=None if rank == NOT_FOUND else rank + 1,
        answer=cards[-1] if rank >= _MISSED and reachable else None,
    )


def _cards(side: Side[Query] | Side[Document], rows: Sequence[int], size: tuple[int, int]) -> list[ItemCard]:
    items, images, items_per_row = side.window(rows)
    return [make_card(item, images, size) for item in items[::items_per_row]]
