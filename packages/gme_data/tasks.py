"""Retrieval tasks on disk: ``task.yaml``, ``corpus.parquet``, ``queries.parquet``, ``qrels.parquet``, and the pictures.

Embedded and official benchmarks take this one shape. Knows no model and no metric beyond its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import yaml

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES, Item
from gme_data.parquet import read_rows, write_table
from gme_data.settings import Frozen, load_config

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
    task_type: Literal["T->T", "I->I", "T->I", "T->VD", "I->T", "T->IT", "IT->T", "IT->I", "IT->IT"]
    """One of the nine task types of UMRB."""
    metric: str
    """The headline metric, e.g. ``ndcg_at_10`` or ``hit_rate_at_5``."""
    instruction: str | None
    """Put before each query; candidates never get one."""
    split: Literal["train", "dev", "test"]
    """Which part of the entities the queries are about."""
    subset: str
    """``seen`` if the entities were trained on (with other wording or style), ``unseen`` if not."""
    description: str
    """What is asked of what."""
    relevance: str
    """How it was decided which documents answer a query."""
    licences: tuple[str, ...]
    """Every licence that an item of the task carries."""
    images: str = ""
    """Folder of the picture shards, relative to the task's folder; empty if there are no pictures."""
    queries: int
    """Number of queries."""
    pool: int
    """Number of documents searched."""


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
    """One task in memory. `qrels` maps query id -> document id -> relevance (1 or more)."""

    card: TaskCard
    corpus: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: dict[str, dict[str, int]]


def save_task(folder: Path, task: RetrievalTask) -> None:
    """Write the four files of a task; rows sorted by id, so that equal tasks have equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(
        folder / "corpus.parquet", [_doc_row(d) for d in sorted(task.corpus, key=lambda d: d.id)], CORPUS_SCHEMA
    )
    write_table(
        folder / "queries.parquet", [_query_row(q) for q in sorted(task.queries, key=lambda q: q.id)], QUERIES_SCHEMA
    )
    pairs = sorted((q, d, relevance) for q, docs in task.qrels.items() for d, relevance in docs.items())
    write_table(
        folder / "qrels.parquet", [dict(zip(QRELS_SCHEMA.names, pair, strict=True)) for pair in pairs], QRELS_SCHEMA
    )
    text = yaml.safe_dump(task.card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    (folder / "task.yaml").write_text(text, encoding="utf-8")


def load_card(folder: Path) -> TaskCard:
    """Read ``task.yaml``. Raises `FoundryError` if it is missing or has bad fields."""
    return load_config(folder / "task.yaml", TaskCard)


def load_task(folder: Path) -> RetrievalTask:
    """Read a task. It is not checked for integrity here: see gme_validation.

    Raises:
        FoundryError: A file is missing or corrupt.
    """
    qrels: dict[str, dict[str, int]] = {}
    for row in read_rows(folder / "qrels.parquet", QRELS_SCHEMA):
        qrels.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    return RetrievalTask(
        card=load_card(folder),
        corpus=tuple(
            Document(row["id"], _item(row, folder), row["entity_group"], row["licence"])
            for row in read_rows(folder / "corpus.parquet", CORPUS_SCHEMA)
        ),
        queries=tuple(
            Query(row["id"], _item(row, folder), row["entity_group"], row["subset"], row["licence"])
            for row in read_rows(folder / "queries.parquet", QUERIES_SCHEMA)
        ),
        qrels=qrels,
    )


def list_tasks(folder: Path) -> list[Path]:
    """Folders below `folder` that hold a task, in the order of the task types, then by name.

    Raises:
        FoundryError: There is none.
    """
    found = sorted(path.parent for path in folder.glob("*/task.yaml"))
    if not found:
        raise FoundryError(f"No tasks in {folder}", hint="Run `gme atlas build` first, or `gme pipeline`.")
    return sorted(found, key=lambda path: (TASK_TYPES.index(load_card(path).task_type), path.name))


def image_folders(tasks: Sequence[Path]) -> list[Path]:
    """The picture folders that the tasks name, each once."""
    folders = [(path / card.images).resolve() for path in tasks if (card := load_card(path)).images]
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


def _item(row: dict[str, Any], folder: Path) -> Item:
    try:
        return Item(row["text"], row["image"])
    except ValueError as error:
        raise FoundryError(f"{folder}: row {row['id']!r} has neither text nor image.") from error
