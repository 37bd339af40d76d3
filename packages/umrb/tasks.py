"""Retrieval tasks made ready to be scored: checked, ordered, and numbered.

Documents are sorted by id, descending: the search breaks ties by the lower row, and so ties fall as in trec_eval.
Knows no model and no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, image_folders, list_tasks, load_task
from umrb.metrics import Judgements, parse_metric


@dataclass(frozen=True, slots=True)
class NumberedTask:
    """A task whose queries and documents are known by their position.

    Attributes:
        queries: q queries, by id.
        docs: n documents, by id, descending.
        judgements: Pairs of positions in `queries` and `docs`.
    """

    card: TaskCard
    queries: tuple[Query, ...]
    docs: tuple[Document, ...]
    judgements: Judgements


def load_tasks(folder: Path, only: Sequence[str] = ()) -> list[NumberedTask]:
    """The tasks below `folder`, all or those named in `only`, in the order of the task types.

    Raises:
        FoundryError: No tasks, a name of `only` is not there, or a task is not whole; see `number_task`.
    """
    paths = list_tasks(folder)
    unknown = sorted(set(only) - {path.name for path in paths})
    if unknown:
        raise FoundryError(
            f"No task {', '.join(unknown)} in {folder}.", hint=f"There are: {', '.join(path.name for path in paths)}."
        )
    return [number_task(load_task(path)) for path in paths if not only or path.name in only]


def open_images(folder: Path) -> ImageStore:
    """The pictures that the tasks below `folder` name."""
    return ImageStore(image_folders(list_tasks(folder)))


def number_task(task: RetrievalTask) -> NumberedTask:
    """Check a task and number its queries and documents.

    Raises:
        FoundryError: An id stands twice, a judgement points nowhere, a query has no relevant document, or the metric
            is not known. A score of such a task would be a number without a meaning.
    """
    parse_metric(task.card.metric)
    queries = tuple(sorted(task.queries, key=lambda query: query.id))
    docs = tuple(sorted(task.corpus, key=lambda doc: doc.id, reverse=True))
    query_row = _rows(task.card.name, "query", [query.id for query in queries])
    doc_row = _rows(task.card.name, "document", [doc.id for doc in docs])
    _check_judgements(task, query_row, doc_row)
    pairs = sorted((query_row[q], doc_row[d], gain) for q, found in task.qrels.items() for d, gain in found.items())
    query, doc, gain = zip(*pairs, strict=True)
    judgements = Judgements(np.array(query), np.array(doc), np.array(gain, dtype=np.float64))
    return NumberedTask(task.card, queries, docs, judgements)


def _rows(task: str, kind: str, ids: Sequence[str]) -> dict[str, int]:
    rows = {id_: row for row, id_ in enumerate(ids)}
    if not rows:
        raise FoundryError(f"Task {task}: it has no {kind}.", hint="Build the benchmark again.")
    if len(rows) != len(ids):
        twice = next(id_ for row, id_ in enumerate(ids) if rows[id_] != row)
        raise FoundryError(f"Task {task}: {kind} id '{twice}' stands twice.", hint="Build the benchmark again.")
    return rows


def _check_judgements(task: RetrievalTask, query_row: dict[str, int], doc_row: dict[str, int]) -> None:
    problems = [f"query '{q}' of qrels.parquet is not in queries.parquet" for q in task.qrels if q not in query_row]
    problems += [f"query '{q}' has no relevant document" for q in query_row if not task.qrels.get(q)]
    for q, found in task.qrels.items():
        problems += [f"relevant document '{d}' of query '{q}' is not in the pool" for d in found if d not in doc_row]
        problems += [
            f"relevance of '{d}' for query '{q}' is {gain}, not 1 or more" for d, gain in found.items() if gain < 1
        ]
    if problems:
        raise FoundryError(
            f"Task {task.card.name} is not whole: {'; '.join(problems[:3])} ({len(problems)} in all).",
            hint="Build the benchmark again, or run `gme validate` for the whole list.",
        )
