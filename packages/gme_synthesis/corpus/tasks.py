"""Held-out examples become retrieval tasks, one per source, task type and split, in the format of `gme_data.tasks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_synthesis.corpus.example_buffer import ExampleBuffer

_METRICS = {"T->VD": "ndcg_at_5", "IT->IT": "hit_rate_at_5", "IT->T": "hit_rate_at_5"}
_ID_LENGTH = 24
_MIN_QUERIES = 2
"""A task has at least so many queries."""


def write_tasks(folder: Path, buffer: ExampleBuffer, max_pool: int) -> int:
    """Writes ``<folder>/dev`` and ``<folder>/test``; pools are the positives of all splits.

    Args:
        folder: The output folder.
        buffer: The examples.
        max_pool: Queries and documents of a task, at most.

    Returns:
        The number of tasks.
    """
    tasks = 0
    for source, task_type in sorted(buffer.count()):
        for split in ("dev", "test"):
            held_out = list(islice(buffer.examples(split, source, task_type), max_pool))
            # Of the distinct queries, since one query may have several relevant documents.
            if len({example.query for example in held_out}) >= _MIN_QUERIES:
                name = f"{source}-{task_type.replace('->', '2').lower()}"
                examples = buffer.examples(source=source, task_type=task_type)
                save_task(folder / split / name, _task(name, split, held_out, examples, max_pool))
                tasks += 1
    return tasks


def _task(
    name: str, split: Literal["dev", "test"], held_out: Sequence[Example], examples: Iterable[Example], max_pool: int
) -> RetrievalTask:
    """Returns the task of some held-out examples, with the positives of `examples` of any split as distractors."""
    # The positives that answer the queries come first, so that no limit of the pool can cut them off.
    documents = {_id(example.positive): _document(example) for example in held_out}
    for example in examples:
        if len(documents) >= max_pool:
            break
        documents.setdefault(_id(example.positive), _document(example))
    queries = {
        _id(example.query): Query(
            _id(example.query), example.query, example.entity_group, example.source, example.licence
        )
        for example in held_out
    }
    qrels: dict[str, dict[str, int]] = {}
    for example in held_out:
        qrels.setdefault(_id(example.query), {})[_id(example.positive)] = 1
    first = held_out[0]
    card = TaskCard(
        name=name,
        task_type=first.task_type,
        metric=_METRICS.get(first.task_type, "ndcg_at_10"),
        instruction=first.instruction,
        split=split,
        subset="unseen",
        description=f"Synthetic queries of the source {first.source}, about entities that were not trained on.",
        relevance="A document answers a query if it is what the query was made from.",
        licences=tuple(sorted({example.licence for example in held_out})),
        images="../../../images",
        queries=len(queries),
        pool=len(documents),
    )
    return RetrievalTask(card, tuple(documents.values()), tuple(queries.values()), qrels)


def _document(example: Example) -> Document:
    return Document(_id(example.positive), example.positive, example.entity_group, example.licence)


def _id(item: Item) -> str:
    # By content, so that a passage that answers several questions is one document.
    return sha256_json([item.text, item.image])[:_ID_LENGTH]
