"""Makes a retrieval task from a specification, documents and candidate queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from atlas.choice import seeded_sample
from atlas.config import AtlasConfig
from atlas.instructions import INSTRUCTIONS
from gme_data.items import Item, TaskType
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard

IMAGES = "../../../images"
"""Path of the picture shards, relative to the folder of a task."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the card of a task states; `source` is the key of its instruction."""

    name: str
    task_type: TaskType
    metric: str
    source: str
    subset: str
    description: str
    relevance: str


@dataclass(frozen=True, slots=True)
class BenchmarkQuery:
    """A candidate query, with the ids of its relevant documents, whether or not the pool has them."""

    id: str
    item: Item
    entity_group: str
    subset: str
    licence: str
    relevant: frozenset[str]


def make_task(
    spec: TaskSpec, corpus: list[Document], candidates: Iterable[BenchmarkQuery], config: AtlasConfig, split: str
) -> RetrievalTask:
    """Makes a task of at most `config.queries` queries (half of that for dev), each with an answer in the pool.

    A document with the same item as a relevant one (two skin tones of a masked figure) is relevant too: no model could
    tell them apart.
    """
    pool = {doc.id: doc.item for doc in corpus}
    ids_of_item: dict[Item, list[str]] = defaultdict(list)
    for doc in corpus:
        ids_of_item[doc.item].append(doc.id)
    limit = config.queries if split == "test" else max(1, config.queries // 2)
    answerable = (query for query in candidates if query.relevant & pool.keys())
    # The name of the task is hashed too, so that tasks over the same facts sample different queries.
    queries = seeded_sample(answerable, limit, config.seed, lambda query: f"{spec.name}:{query.id}")
    licences = sorted({doc.licence for doc in corpus} | {query.licence for query in queries})
    with_pictures = any(doc.item.image for doc in corpus) or any(query.item.image for query in queries)
    card = TaskCard(
        name=spec.name,
        task_type=spec.task_type,
        metric=spec.metric,
        instruction=INSTRUCTIONS[spec.source],
        split=cast("Literal['dev', 'test']", split),
        subset=spec.subset,
        description=spec.description,
        relevance=spec.relevance,
        licences=tuple(licences),
        images=IMAGES if with_pictures else "",
        queries=len(queries),
        pool=len(corpus),
    )
    return RetrievalTask(
        card=card,
        corpus=tuple(corpus),
        queries=tuple(Query(q.id, q.item, q.entity_group, q.subset, q.licence) for q in queries),
        qrels={
            q.id: dict.fromkeys(sorted(id_ for doc in q.relevant & pool.keys() for id_ in ids_of_item[pool[doc]]), 1)
            for q in queries
        },
    )
