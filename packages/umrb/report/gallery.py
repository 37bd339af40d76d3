"""Retrieval examples with thumbnails: for each task type, some queries that were answered and some that were not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gme_data.images import ImageStore
from gme_data.items import TASK_TYPES
from gme_data.parquet import read_rows
from umrb.cards import PAGE_THUMB, THUMB, Card, Example, Found, make_card
from umrb.config import ReportConfig
from umrb.report.facts import Facts
from umrb.runner import QUERY_SCHEMA, RUN_SCHEMA
from umrb.tasks import NumberedTask

_MISSED_BELOW = 10


@dataclass(frozen=True, slots=True)
class Section:
    """The examples of one task type."""

    task_type: str
    instruction: str | None
    hits: list[Example]
    misses: list[Example]


def build_gallery(
    facts: Facts, tasks: Sequence[NumberedTask], images: ImageStore, config: ReportConfig
) -> list[Section]:
    """Draw examples of every task type.

    Args:
        facts: Knows where the model's rankings are.
        tasks: The tasks that were scored.
        images: Their pictures.
        config: How many, and the seed that draws them.
    """
    sections = []
    for kind in TASK_TYPES:
        group = [task for task in tasks if task.card.task_type == kind]
        if group:
            sections.append(_section(facts, group, images, config))
    return sections


def _section(facts: Facts, group: Sequence[NumberedTask], images: ImageStore, config: ReportConfig) -> Section:
    hits: list[Example] = []
    misses: list[Example] = []
    for number, task in enumerate(group):
        name = task.card.name
        values = read_rows(facts.query_file("evaluation", facts.model.system, name), QUERY_SCHEMA)
        ranks = {row["query_id"]: row["first_relevant"] for row in values}
        ids = sorted(ranks)
        drawn = [ids[i] for i in np.random.default_rng(config.seed).permutation(len(ids))]
        hit = [id_ for id_ in drawn if ranks[id_] == 1]
        missed = [id_ for id_ in drawn if ranks[id_] is None or ranks[id_] > _MISSED_BELOW]
        teller = _Teller(task, images, facts.run_file(name), config.shown)
        hits += [teller.tell(id_, ranks[id_]) for id_ in hit[: _share(config.hits, number, len(group))]]
        misses += [teller.tell(id_, ranks[id_]) for id_ in missed[: _share(config.misses, number, len(group))]]
    return Section(group[0].card.task_type, group[0].card.instruction, hits, misses)


def _share(total: int, number: int, of: int) -> int:
    """How many of `total` examples the task `number` of `of` gives; earlier tasks give the odd ones."""
    return total // of + (number < total % of)


class _Teller:
    """Makes examples of one task from its run file."""

    def __init__(self, task: NumberedTask, images: ImageStore, run: Path, shown: int) -> None:
        self._images = images
        self._page = task.card.task_type.endswith("VD")
        self._task = task
        self._query_rows = {query.id: row for row, query in enumerate(task.queries)}
        self._docs = {doc.id: doc for doc in task.docs}
        self._found: dict[str, list[dict[str, Any]]] = {}
        for row in read_rows(run, RUN_SCHEMA):
            if row["rank"] <= shown:
                self._found.setdefault(row["query_id"], []).append(row)

    def tell(self, query_id: str, rank: int | None) -> Example:
        """The example of one query."""
        row = self._query_rows[query_id]
        judgements = self._task.judgements
        relevant = {self._task.docs[doc].id for doc in judgements.doc[judgements.query == row]}
        missed = rank is None or rank > _MISSED_BELOW
        return Example(
            task=self._task.card.name,
            query=make_card(self._task.queries[row].item, self._images, THUMB),
            found=[
                Found(self._card(found["doc_id"]), found["score"], found["doc_id"] in relevant)
                for found in self._found.get(query_id, [])
            ],
            rank=rank,
            answer=self._card(min(relevant)) if missed else None,
        )

    def _card(self, doc_id: str) -> Card:
        return make_card(self._docs[doc_id].item, self._images, PAGE_THUMB if self._page else THUMB)
