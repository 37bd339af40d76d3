"""Retrieval examples with thumbnails: for each task type, some queries that were answered and some that were not."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gme_data.images import ImageStore
from gme_data.items import TASK_TYPES, Item
from gme_data.parquet import read_rows
from umrb.config import ReportConfig
from umrb.report.facts import Facts
from umrb.runner import QUERY_SCHEMA, RUN_SCHEMA
from umrb.tasks import NumberedTask

_THUMB = (96, 72)
_PAGE_THUMB = (150, 190)
_QUALITY = 72
_MISSED_BELOW = 10


@dataclass(frozen=True, slots=True)
class Card:
    """An item as the page shows it: text, and the picture as a data URI."""

    text: str | None
    picture: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A retrieved document."""

    card: Card
    score: float
    relevant: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One query with the first documents found.

    Attributes:
        rank: Rank from 1 of the first relevant document; None if it is not among those retrieved.
        answer: A relevant document, for queries that missed.
    """

    task: str
    query: Card
    found: list[Found]
    rank: int | None
    answer: Card | None


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
    photographer = _Photographer(images)
    sections = []
    for kind in TASK_TYPES:
        group = [task for task in tasks if task.card.task_type == kind]
        if group:
            sections.append(_section(facts, group, photographer, config))
    return sections


def _section(facts: Facts, group: Sequence[NumberedTask], photographer: _Photographer, config: ReportConfig) -> Section:
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
        teller = _Teller(task, photographer, facts.run_file(name), config.shown)
        hits += [teller.tell(id_, ranks[id_]) for id_ in hit[: _share(config.hits, number, len(group))]]
        misses += [teller.tell(id_, ranks[id_]) for id_ in missed[: _share(config.misses, number, len(group))]]
    return Section(group[0].card.task_type, group[0].card.instruction, hits, misses)


def _share(total: int, number: int, of: int) -> int:
    """How many of `total` examples the task `number` of `of` gives; earlier tasks give the odd ones."""
    return total // of + (number < total % of)


class _Teller:
    """Makes examples of one task from its run file."""

    def __init__(self, task: NumberedTask, photographer: _Photographer, run: Path, shown: int) -> None:
        self._photographer = photographer
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
            query=self._photographer.card(self._task.queries[row].item, _THUMB),
            found=[
                Found(self._card(found["doc_id"]), found["score"], found["doc_id"] in relevant)
                for found in self._found.get(query_id, [])
            ],
            rank=rank,
            answer=self._card(min(relevant)) if missed else None,
        )

    def _card(self, doc_id: str) -> Card:
        return self._photographer.card(self._docs[doc_id].item, _PAGE_THUMB if self._page else _THUMB)


class _Photographer:
    """Makes thumbnails, each once."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._made: dict[tuple[str, tuple[int, int]], str] = {}

    def card(self, item: Item, size: tuple[int, int]) -> Card:
        """An item with its picture at most `size` (width, height in pixels)."""
        return Card(item.text, self._uri(item.image, size) if item.image else None)

    def _uri(self, id_: str, size: tuple[int, int]) -> str:
        if (id_, size) not in self._made:
            image = self._images.load(id_)
            image.thumbnail(size, Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.save(buffer, format="WEBP", quality=_QUALITY, method=6)
            self._made[id_, size] = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
        return self._made[id_, size]
