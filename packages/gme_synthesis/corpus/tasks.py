"""Held-out examples become retrieval tasks, one per source and split, in the shape that `gme evaluate` reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_synthesis.corpus.spool import Spool

_METRICS = {"T->VD": "ndcg_at_5", "IT->IT": "hit_rate_at_5", "IT->T": "hit_rate_at_5"}
_ID_LENGTH = 24
_FEWEST = 2
"""Queries that make a task, at least."""


def write_tasks(folder: Path, spool: Spool, pool: int) -> int:
    """Write ``<folder>/dev`` and ``<folder>/test``; pools are the positives of all splits, up to `pool` of them.

    Returns:
        How many tasks. None asks more than `pool` questions.
    """
    written = 0
    for source, task_type in sorted(spool.count()):
        for split in ("dev", "test"):
            asked = list(islice(spool.examples(split, source, task_type), pool))
            if len({example.query for example in asked}) >= _FEWEST:
                name = f"{source}-{task_type.replace('->', '2').lower()}"
                others = spool.examples(source=source, task_type=task_type)
                save_task(folder / split / name, _task(name, split, asked, others, pool))
                written += 1
    return written


def _task(
    name: str, split: Literal["dev", "test"], asked: Sequence[Example], members: Iterable[Example], pool: int
) -> RetrievalTask:
    documents = {_id(example.positive): _document(example) for example in asked}
    for example in members:
        if len(documents) >= pool:
            break
        documents.setdefault(_id(example.positive), _document(example))
    queries = {_id(one.query): _query(one) for one in asked}
    qrels: dict[str, dict[str, int]] = {}
    for example in asked:
        qrels.setdefault(_id(example.query), {})[_id(example.positive)] = 1
    first = asked[0]
    card = TaskCard(
        name=name,
        task_type=first.task_type,
        metric=_METRICS.get(first.task_type, "ndcg_at_10"),
        instruction=first.instruction,
        split=split,
        subset="unseen",
        description=f"Synthetic queries of the source {first.source}, about entities that were not trained on.",
        relevance="A document answers a query if it is what the query was made from.",
        licences=tuple(sorted({example.licence for example in asked})),
        images="../../../images",
        queries=len(queries),
        pool=len(documents),
    )
    return RetrievalTask(card, tuple(documents.values()), tuple(queries.values()), qrels)


def _document(example: Example) -> Document:
    return Document(_id(example.positive), example.positive, example.entity_group, example.licence)


def _query(example: Example) -> Query:
    return Query(_id(example.query), example.query, example.entity_group, example.source, example.licence)


def _id(item: Item) -> str:
    return sha256_json([item.text, item.image])[:_ID_LENGTH]
