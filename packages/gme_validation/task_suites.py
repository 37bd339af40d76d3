"""Suites over a retrieval task: its documents, its queries and its relevance judgements."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pandas as pd

from gme_data.items import modalities_of
from gme_validation.config import ValidationConfig
from gme_validation.suites import TableSuite, between, holds, lengths, one_of, unique
from gme_validation.tables import EntitySplits, TaskFrames, modality


def task_suites(
    task: TaskFrames,
    splits: EntitySplits,
    pictures: Container[str],
    config: ValidationConfig,
    query_split: str,
    pool_splits: Sequence[str],
) -> list[TableSuite]:
    """Returns the suites ``<split>.<task>.corpus``, ``.queries`` and ``.qrels``.

    Args:
        task: The task.
        splits: Splits of entities and pictures.
        pictures: Ids of the stored pictures.
        config: Floors and limits.
        query_split: Split of the entities that queries are about.
        pool_splits: Splits of the entities in the pool.
    """
    name = f"{task.card.split}.{task.card.name}"
    return [
        _documents(f"{name}.corpus", task, splits, pictures, config, pool_splits),
        _queries(f"{name}.queries", task, splits, pictures, config, query_split),
        _qrels(f"{name}.qrels", task),
    ]


def _documents(
    name: str,
    task: TaskFrames,
    splits: EntitySplits,
    pictures: Container[str],
    config: ValidationConfig,
    pool_splits: Sequence[str],
) -> TableSuite:
    frame = _with_items(task.corpus, splits, pictures)
    return TableSuite(
        name,
        frame,
        _row_limits(task.card.pool, config.min_pool),
        ("id", "entity_group", "licence"),
        (
            unique("id"),
            one_of("modality", (modalities_of(task.card.task_type)[1],), "documents of the task's type"),
            holds("picture_stored", "a document's picture is in the store"),
            one_of("entity_split", pool_splits, "split of the entities in the pool"),
            lengths("text_or_empty", 0, config.max_text_chars, "length of the text"),
        ),
    )


def _queries(
    name: str,
    task: TaskFrames,
    splits: EntitySplits,
    pictures: Container[str],
    config: ValidationConfig,
    query_split: str,
) -> TableSuite:
    frame = _with_items(task.queries, splits, pictures)
    frame["relevant"] = frame["id"].map(task.qrels["query_id"].value_counts()).fillna(0).astype(int)
    return TableSuite(
        name,
        frame,
        _row_limits(task.card.queries, config.min_queries),
        ("id", "entity_group", "subset", "licence"),
        (
            unique("id"),
            one_of("modality", (modalities_of(task.card.task_type)[0],), "queries of the task's type"),
            holds("picture_stored", "a query's picture is in the store"),
            one_of("entity_split", (query_split,), f"entities of the queries are {task.card.subset}"),
            between("relevant", 1, None, "every query has a relevant document"),
            lengths("text_or_empty", 0, config.max_text_chars, "length of the text"),
        ),
    )


def _qrels(name: str, task: TaskFrames) -> TableSuite:
    frame = task.qrels.copy()
    frame["pair"] = frame["query_id"] + " " + frame["doc_id"]
    frame["query_known"] = frame["query_id"].isin(task.queries["id"])
    frame["document_known"] = frame["doc_id"].isin(task.corpus["id"])
    return TableSuite(
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


def _row_limits(stated: int | None, floor: int) -> tuple[int, int | None]:
    """Returns the number of rows that the card states, twice, unless it is below the floor."""
    return (stated, stated) if stated is not None and stated >= floor else (floor, None)


def _with_items(rows: pd.DataFrame, splits: EntitySplits, pictures: Container[str]) -> pd.DataFrame:
    """Returns `rows` with the modality, the split of the entity, and whether the picture is stored."""
    frame = rows.copy()
    frame["text_or_empty"] = frame["text"].fillna("")  # so that the limit of length applies to all modalities
    frame["modality"] = [modality(text, image) for text, image in zip(rows["text"], rows["image"], strict=True)]
    frame["entity_split"] = [splits.groups.get(group, "unknown") for group in rows["entity_group"]]
    frame["picture_stored"] = [not isinstance(image, str) or image in pictures for image in rows["image"]]
    return frame
