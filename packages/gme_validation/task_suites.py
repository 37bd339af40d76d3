"""Suites over a retrieval task: its documents, its queries, and the links between them."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pandas as pd

from gme_data.items import modalities_of
from gme_validation.config import ValidationConfig
from gme_validation.suites import Suite, between, holds, lengths, one_of, unique
from gme_validation.tables import Owners, Task, modality


def task_suites(
    task: Task, owners: Owners, pictures: Container[str], config: ValidationConfig, asked: str, pool: Sequence[str]
) -> list[Suite]:
    """Suites ``<split>.<task>.corpus``, ``.queries`` and ``.qrels``.

    Args:
        task: The task.
        owners: Splits of entities and pictures.
        pictures: Ids of the stored pictures.
        config: Floors and limits.
        asked: Split of the entities that queries are about.
        pool: Splits of the entities in the pool.
    """
    name = f"{task.card.split}.{task.card.name}"
    return [
        _documents(f"{name}.corpus", task, owners, pictures, config, pool),
        _queries(f"{name}.queries", task, owners, pictures, config, asked),
        _qrels(f"{name}.qrels", task),
    ]


def _documents(
    name: str, task: Task, owners: Owners, pictures: Container[str], config: ValidationConfig, pool: Sequence[str]
) -> Suite:
    frame = _with_items(task.corpus, owners, pictures)
    return Suite(
        name,
        frame,
        _as_announced(task.card.pool, config.min_pool),
        ("id", "entity_group", "licence"),
        (
            unique("id"),
            one_of("modality", (modalities_of(task.card.task_type)[1],), "documents of the task's type"),
            holds("picture_stored", "a document's picture is in the store"),
            one_of("owner", pool, "split of the entities in the pool"),
            lengths("said", 0, config.max_text_chars, "length of the text"),
        ),
    )


def _queries(
    name: str, task: Task, owners: Owners, pictures: Container[str], config: ValidationConfig, asked: str
) -> Suite:
    frame = _with_items(task.queries, owners, pictures)
    frame["relevant"] = frame["id"].map(task.qrels["query_id"].value_counts()).fillna(0).astype(int)
    return Suite(
        name,
        frame,
        _as_announced(task.card.queries, config.min_queries),
        ("id", "entity_group", "subset", "licence"),
        (
            unique("id"),
            one_of("modality", (modalities_of(task.card.task_type)[0],), "queries of the task's type"),
            holds("picture_stored", "a query's picture is in the store"),
            one_of("owner", (asked,), f"entities of the queries are {task.card.subset}"),
            between("relevant", 1, None, "every query has a relevant document"),
            lengths("said", 0, config.max_text_chars, "length of the text"),
        ),
    )


def _qrels(name: str, task: Task) -> Suite:
    frame = task.qrels.copy()
    frame["pair"] = frame["query_id"] + " " + frame["doc_id"]
    frame["query_known"] = frame["query_id"].isin(task.queries["id"])
    frame["document_known"] = frame["doc_id"].isin(task.corpus["id"])
    return Suite(
        name,
        frame,
        (1, None),
        ("query_id", "doc_id", "relevance"),
        (
            unique("pair", "a query and a document are judged once"),
            holds("query_known", "the query exists"),
            holds("document_known", "the document exists"),
            between("relevance", 1, None, "only relevant documents are listed"),
        ),
    )


def _as_announced(announced: int | None, floor: int) -> tuple[int, int | None]:
    """Row limits: the number on the task's card, unless that is below the floor."""
    return (announced, announced) if announced is not None and announced >= floor else (floor, None)


def _with_items(rows: pd.DataFrame, owners: Owners, pictures: Container[str]) -> pd.DataFrame:
    """`rows` with modality, split that owns the entity, and whether the picture is stored."""
    frame = rows.copy()
    frame["said"] = frame["text"].fillna("")
    frame["modality"] = [modality(text, image) for text, image in zip(rows["text"], rows["image"], strict=True)]
    frame["owner"] = [owners.groups.get(group, "unknown") for group in rows["entity_group"]]
    frame["picture_stored"] = [not isinstance(image, str) or image in pictures for image in rows["image"]]
    return frame
