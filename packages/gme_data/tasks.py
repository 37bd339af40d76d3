"""Retrieval tasks on disk: ``task.yaml``, ``corpus.parquet``, ``queries.parquet``, ``qrels.parquet``, and the pictures.

These four are what is written; what is read may lie in other formats, see `gme_data.task_tables`, and a folder of
texts in BEIR's layout needs no ``task.yaml``.
Embedded and official benchmarks take this one shape. Knows no model and no metric beyond its name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import yaml

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES, Item, TaskType
from gme_data.parquet import write_table
from gme_data.settings import Frozen, load_config
from gme_data.task_tables import has_table, read_items, read_judgements
from gme_data.verified import VerifiedFolder, folders_with

CARD = "task.yaml"
TABLES = ("corpus", "queries", "qrels")

CORPUS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("image", pa.string()),
        pa.field("entity_group", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
    ]
)
QUERIES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("image", pa.string()),
        pa.field("entity_group", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
    ]
)
QRELS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("relevance", pa.int32(), nullable=False),
    ]
)


class TaskCard(Frozen):
    """What ``task.yaml`` says of a task."""

    name: str
    """Unique within a benchmark, e.g. ``place-question-t2t``."""
    task_type: TaskType
    """The modalities of queries and documents."""
    metric: str
    """The headline metric, e.g. ``ndcg_at_10`` or ``hit_rate_at_5``."""
    instruction: str | None
    """Put before each query; candidates never get one."""
    split: Literal["train", "dev", "test"]
    """Which part of the entities the queries are about."""
    subset: str
    """``seen`` if the entities were trained on (with other wording or style), ``unseen`` if not."""
    description: str
    """What a query asks, and what the documents are."""
    relevance: str
    """How it was decided which documents answer a query."""
    licences: tuple[str, ...]
    """Every licence that an item of the task carries."""
    images: str = ""
    """Folder of the picture shards, relative to the task's folder; empty if there are no pictures."""
    queries: int | None = None
    """Number of queries; null if it was not counted beforehand."""
    pool: int | None = None
    """Number of documents searched; null if it was not counted beforehand."""


@dataclass(frozen=True, slots=True)
class Document:
    """A candidate of the pool."""

    id: str
    item: Item
    entity_group: str
    licence: str


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the pool. `subset` allows a breakdown within a task, e.g. by language or field."""

    id: str
    item: Item
    entity_group: str
    subset: str
    licence: str


@dataclass(frozen=True, slots=True)
class RetrievalTask:
    """One task in memory.

    Attributes:
        qrels: Query id -> document id -> relevance; 0 and less say that the document is not relevant.
        repeated: Pairs of ids that the table of judgements holds more than once; `qrels` has the last of them.
    """

    card: TaskCard
    corpus: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: dict[str, dict[str, int]]
    repeated: tuple[tuple[str, str], ...] = ()


def save_task(folder: Path, task: RetrievalTask) -> None:
    """Writes the four files of a task; rows sorted by id, so that equal tasks have equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(
        folder / "corpus.parquet", [_doc_row(d) for d in sorted(task.corpus, key=lambda d: d.id)], CORPUS_SCHEMA
    )
    write_table(
        folder / "queries.parquet", [_query_row(q) for q in sorted(task.queries, key=lambda q: q.id)], QUERIES_SCHEMA
    )
    # Sorted like the rows of the other tables: equal tasks have equal bytes.
    pairs = sorted((q, d, relevance) for q, docs in task.qrels.items() for d, relevance in docs.items())
    write_table(
        folder / "qrels.parquet", [dict(zip(QRELS_SCHEMA.names, pair, strict=True)) for pair in pairs], QRELS_SCHEMA
    )
    text = yaml.safe_dump(task.card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    (folder / CARD).write_text(text, encoding="utf-8")


def load_card(folder: Path) -> TaskCard:
    """Reads ``task.yaml``; for a folder in BEIR's layout without one, returns the conventions of BEIR's evaluation.

    Raises:
        FoundryError: It is missing, though this is not BEIR's layout, or it has bad fields.
    """
    if (folder / CARD).exists() or not is_beir(folder):
        return load_config(folder / CARD, TaskCard)
    return TaskCard(
        name=folder.name,
        task_type="T->T",
        metric="ndcg_at_10",
        instruction=None,
        split="test",
        subset="",
        description="Labelled queries over texts.",
        relevance="As labelled.",
        licences=("LicenseRef-unknown",),
    )


def is_beir(folder: Path) -> bool:
    """Tells whether a folder has the three tables of BEIR's layout, in whichever of its formats."""
    return all(has_table(folder, stem) for stem in TABLES)


def load_task(folder: Path) -> RetrievalTask:
    """Reads a task, its tables in any format that people have; see `gme_data.task_tables`.

    It is not checked for integrity here: see gme_validation, and umrb for tasks of users.

    Raises:
        FoundryError: A file is missing, corrupt, not named by the manifest of the folder, or holds rows that can't be
            taken.
    """
    VerifiedFolder.containing(folder)
    card = load_card(folder)
    qrels: dict[str, dict[str, int]] = {}
    repeated: list[tuple[str, str]] = []
    for query, doc, relevance in read_judgements(folder, card.split, QRELS_SCHEMA):
        judged = qrels.setdefault(query, {})
        repeated += [(query, doc)] if doc in judged else []
        judged[doc] = relevance
    return RetrievalTask(
        card=card,
        corpus=tuple(
            Document(row.id, row.item, row.entity_group, row.licence)
            for row in read_items(folder, "corpus", CORPUS_SCHEMA, titled=True)
        ),
        queries=tuple(
            Query(row.id, row.item, row.entity_group, row.subset, row.licence)
            for row in read_items(folder, "queries", QUERIES_SCHEMA, titled=False)
        ),
        qrels=qrels,
        repeated=tuple(dict.fromkeys(repeated)),
    )


def list_tasks(folder: Path) -> list[Path]:
    """Returns the folders below `folder` that hold a task, in the order of the task types, then by name.

    Raises:
        FoundryError: There is none; something lies there that the manifest of the folder does not name.
    """
    tasks = [folder / name for name in folders_with(folder, CARD)]
    if not tasks:
        raise FoundryError(f"No tasks in {folder}", hint="Run `gme atlas build` first, or `gme pipeline`.")
    return sorted(tasks, key=lambda path: (TASK_TYPES.index(load_card(path).task_type), path.name))


def image_folders(tasks: Sequence[Path]) -> list[Path]:
    """Returns the picture folders that the tasks name, each once."""
    # Links are not followed: a folder of pictures that is a link is no part of the output of the task.
    folders = [Path(os.path.normpath(path / card.images)) for path in tasks if (card := load_card(path)).images]
    return list(dict.fromkeys(folders))


def _doc_row(doc: Document) -> dict[str, Any]:
    return {
        "id": doc.id,
        "text": doc.item.text,
        "image": doc.item.image,
        "entity_group": doc.entity_group,
        "licence": doc.licence,
    }


def _query_row(query: Query) -> dict[str, Any]:
    return {
        "id": query.id,
        "text": query.item.text,
        "image": query.item.image,
        "entity_group": query.entity_group,
        "subset": query.subset,
        "licence": query.licence,
    }
