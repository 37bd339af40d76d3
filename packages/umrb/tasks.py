"""Retrieval tasks made ready to be scored: ordered, numbered, checked.

Documents stand by id, descending: the search breaks ties by the lower row, and so ties fall as in trec_eval. A task
with defects is refused where scores must mean something; elsewhere they are listed. Knows no model and no score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, image_folders, list_tasks, load_task
from umrb.metrics import UNREACHABLE, Floats, Ints, Judgements, parse_metric
from umrb.sides import HeldSide, Side, as_given, is_empty

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class NumberedTask:
    """A task whose queries and documents are known by their position.

    Attributes:
        queries: q queries, by id.
        docs: n documents, by id, descending.
        judgements: Pairs of positions in `queries` and `docs`.
        excluded: [q] document that a query must not find, the one of its own id; -1 for none. None: no query has any.
        candidates: Per query the only documents that are ranked; None: all are.
    """

    card: TaskCard
    queries: Side[Query]
    docs: Side[Document]
    judgements: Judgements
    excluded: Ints | None = None
    candidates: tuple[Ints, ...] | None = None


@dataclass(frozen=True, slots=True)
class Qrels:
    """Judged pairs as they are published: three columns of one length; gains may be 0."""

    query: pa.Array
    doc: pa.Array
    gain: Floats

    @classmethod
    def of(cls, qrels: dict[str, dict[str, int]]) -> Qrels:
        """From the dict of dicts that tasks hold."""
        pairs = [(query, doc, gain) for query, found in qrels.items() for doc, gain in found.items()]
        query, doc, gain = zip(*pairs, strict=True) if pairs else ((), (), ())
        return cls(pa.array(query, pa.string()), pa.array(doc, pa.string()), np.array(gain, dtype=np.float64))


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
    wanted = [path for path in paths if not only or path.name in only]
    images = open_images(folder) if image_folders(wanted) else None
    return [number_task(load_task(path), images) for path in wanted]


def open_images(folder: Path) -> ImageStore:
    """The pictures that the tasks below `folder` name."""
    return ImageStore(image_folders(list_tasks(folder)))


def number_task(task: RetrievalTask, images: ImageStore | None = None) -> NumberedTask:
    """Check a task and number its queries and documents.

    Raises:
        FoundryError: An id stands twice, a judgement points nowhere, a query has no relevant document, a relevance is
            below 1, an item is empty, or the metric is not known. A score of such a task would be a number without a
            meaning.
    """
    queries = HeldSide(tuple(sorted(task.queries, key=lambda query: query.id)), images)
    docs = HeldSide(tuple(sorted(task.corpus, key=lambda doc: doc.id, reverse=True)), images)
    for kind, side in (("query", queries), ("document", docs)):
        if not len(side):
            raise FoundryError(f"Task {task.card.name}: it has no {kind}.", hint="Build the benchmark again.")
    qrels = Qrels.of(task.qrels)
    numbered = number(task.card, queries, docs, qrels)
    problems = [*defects(numbered, qrels), *_not_positive(task)]
    if problems:
        raise FoundryError(
            f"Task {task.card.name} is not whole: {'; '.join(problems)}.",
            hint="Build the benchmark again, or run `gme validate` for the whole list.",
        )
    return numbered


def number(card: TaskCard, queries: Side[Query], docs: Side[Document], qrels: Qrels) -> NumberedTask:
    """Number the judged pairs of a task. A relevant document that is not there counts, and can't be found.

    Raises:
        FoundryError: The metric is not known.
    """
    parse_metric(card.metric)
    query, doc = _places(qrels.query, queries.ids, -1), _places(qrels.doc, docs.ids, UNREACHABLE)
    kept = np.flatnonzero((qrels.gain > 0) & (query >= 0))
    order = kept[np.lexsort((doc[kept], query[kept]))]
    return NumberedTask(card, queries, docs, Judgements(query[order], doc[order], qrels.gain[order], len(queries)))


def defects(task: NumberedTask, qrels: Qrels, expected: tuple[int | None, int | None] = (None, None)) -> list[str]:
    """What is wrong with a task, a line each; empty if nothing is.

    Args:
        task: Numbered from `qrels`.
        qrels: As published.
        expected: Published numbers of queries and documents.
    """
    found = []
    for kind, side, number_of in (("query", task.queries, expected[0]), ("document", task.docs, expected[1])):
        ids = side.ids
        twice = _twice(ids)
        found += [f"{_some(kind, 'id', twice)} stand(s) more than once"] if twice else []
        empty = ids.take(pa.array(is_empty(side.digests(as_given)))).to_pylist()
        found += [f"{_some(kind, '', empty)} hold(s) neither text nor picture"] if empty else []
        if number_of is not None and number_of != len(side):
            found.append(f"{len(side):,} {kind} rows, {number_of:,} expected")
    lost = _absent(qrels.query, task.queries.ids)
    found += [f"{_some('query', '', lost)} of the judgements is not there"] if lost else []
    pairs = task.judgements
    nowhere = np.flatnonzero(pairs.doc == UNREACHABLE)
    if len(nowhere):
        blind = len(np.unique(pairs.query[nowhere]))
        outside = _some("relevant document", "", _absent(qrels.doc, task.docs.ids))
        found.append(f"{outside} of {blind} queries is not in the pool")
    unanswered = task.queries.ids.take(pa.array(np.flatnonzero(pairs.relevant == 0))).to_pylist()
    judged = set(qrels.query.take(pa.array(np.flatnonzero(qrels.gain <= 0))).to_pylist())
    # Judged, and nothing found relevant: BEIR has such queries, and they score 0.
    unjudged = [id_ for id_ in unanswered if id_ not in judged]
    found += [f"{_some('query', '', unjudged)} has no relevant document"] if unjudged else []
    return found


def _not_positive(task: RetrievalTask) -> Iterable[str]:
    for query, found in task.qrels.items():
        for doc, gain in found.items():
            if gain < 1:
                yield f"relevance of '{doc}' for query '{query}' is {gain}, not 1 or more"
                return


def _places(ids: pa.Array, known: pa.Array, absent: int) -> NDArray[np.int64]:
    """Row in `known` of each of `ids`. Only `ids` are put into a hash table, `known` may be large."""
    distinct = pc.unique(ids)
    met = pc.index_in(known, value_set=distinct)
    rows = np.flatnonzero(met.is_valid().to_numpy(zero_copy_only=False))[::-1]  # of equal ids the first stays
    places = np.full(len(distinct), absent, np.int64)
    places[met.drop_null().to_numpy()[::-1]] = rows
    found: NDArray[np.int64] = places[pc.index_in(ids, value_set=distinct).to_numpy()]
    return found


def _absent(ids: pa.Array, known: pa.Array) -> list[str]:
    return list(dict.fromkeys(ids.filter(pa.array(_places(ids, known, -1) < 0)).to_pylist()))


def _twice(ids: pa.Array) -> list[str]:
    """Ids that stand more than once; equal ones stand side by side."""
    again = ids.slice(1).filter(pc.equal(ids.slice(1), ids.slice(0, max(len(ids) - 1, 0))))
    return list(dict.fromkeys(again.to_pylist()))


def _some(kind: str, what: str, ids: Sequence[str]) -> str:
    """``query 'a', 'b' and 7 more``."""
    shown = ", ".join(f"'{id_}'" for id_ in sorted(ids)[:_SHOWN])
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return " ".join(filter(None, (kind, what, shown))) + more
