"""From a plan, documents and questions to a retrieval task: queries drawn, relevance kept in the pool, card filled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from atlas.choice import sample
from atlas.config import AtlasConfig
from atlas.instructions import INSTRUCTIONS
from gme_data.items import Item, TaskType
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard

IMAGES = "../../../images"
"""The picture shards as seen from a task's folder."""


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What the card says; `source` chooses the instruction."""

    name: str
    task_type: TaskType
    metric: str
    source: str
    subset: str
    description: str
    relevance: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A query with the ids of the documents that answer it, in or out of the pool."""

    id: str
    item: Item
    entity_group: str
    subset: str
    licence: str
    relevant: frozenset[str]


def make_task(
    plan: TaskPlan, corpus: list[Document], asked: Iterable[Asked], config: AtlasConfig, split: str
) -> RetrievalTask:
    """Draw queries that the pool can answer; at most `config.queries`, half for dev.

    A document that equals a relevant one (two skin tones of a masked figure) is relevant too: nothing tells them apart.
    """
    pool = {doc.id: doc.item for doc in corpus}
    twins: dict[Item, list[str]] = defaultdict(list)
    for doc in corpus:
        twins[doc.item].append(doc.id)
    limit = config.queries if split == "test" else max(1, config.queries // 2)
    answerable = (query for query in asked if query.relevant & pool.keys())
    drawn = sample(answerable, limit, config.seed, lambda query: f"{plan.name}:{query.id}")
    licences = sorted({doc.licence for doc in corpus} | {query.licence for query in drawn})
    with_pictures = any(doc.item.image for doc in corpus) or any(query.item.image for query in drawn)
    card = TaskCard(
        name=plan.name,
        task_type=plan.task_type,
        metric=plan.metric,
        instruction=INSTRUCTIONS[plan.source],
        split=cast("Literal['dev', 'test']", split),
        subset=plan.subset,
        description=plan.description,
        relevance=plan.relevance,
        licences=tuple(licences),
        images=IMAGES if with_pictures else "",
        queries=len(drawn),
        pool=len(corpus),
    )
    return RetrievalTask(
        card=card,
        corpus=tuple(corpus),
        queries=tuple(Query(q.id, q.item, q.entity_group, q.subset, q.licence) for q in drawn),
        qrels={
            q.id: dict.fromkeys(sorted(twin for id_ in q.relevant & pool.keys() for twin in twins[pool[id_]]), 1)
            for q in drawn
        },
    )
