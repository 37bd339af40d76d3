"""Retrieval tasks made ready to be scored: ordered, numbered, checked.

Documents are in descending order of their ids: the search breaks ties by the lower row, so that ties fall as in
trec_eval. `defects` lists what is wrong with a task; callers decide whether to refuse it. Knows no model and no score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard
from umrb.metrics import UNREACHABLE, Floats, Ints, Judgements, parse_metric
from umrb.data.sides import InMemorySide, Side, unchanged, blocks, is_empty

_MAX_NAMED = 3
"""A line about ids names at most this many, and counts the others."""
Row = TypeVar("Row", Query, Document)


@dataclass(frozen=True, slots=True)
class NumberedTask:
    """A task whose queries and documents are referred to by their numbers.

    Attributes:
        card: What the task is.
        queries: q queries, ascending by id.
        docs: n documents, descending by id.
        judgements: Relevant pairs of numbers in `queries` and `docs`.
        excluded: [q] document of the query's own id, which must not be returned; -1 for none. None if no query has one.
        candidates: For each query the only documents that are ranked; None if all are.
    """

    card: TaskCard
    queries: Side[Query]
    docs: Side[Document]
    judgements: Judgements
    excluded: Ints | None = None
    candidates: tuple[Ints, ...] | None = None


@dataclass(frozen=True, slots=True)
class Qrels:
    """Relevance judgements as published: three columns of one length. Gains may be 0 or less."""

    query: pa.Array
    doc: pa.Array
    gain: Floats

    @classmethod
    def of(cls, qrels: dict[str, dict[str, int]]) -> Qrels:
        """Convert judgements ``{query: {document: gain}}``.

        Raises:
            FoundryError: An id or a gain is null.
        """
        pairs = [(query, doc, gain) for query, judged in qrels.items() for doc, gain in judged.items()]
        query, doc, gain = zip(*pairs, strict=True) if pairs else ((), (), ())
        columns = cls(pa.array(query, pa.string()), pa.array(doc, pa.string()), np.array(gain, dtype=np.float64))
        if columns.query.null_count or columns.doc.null_count or np.isnan(columns.gain).any():
            raise FoundryError("A judgement has no query, no document or no relevance.", hint="Leave it out.")
        return columns


def check_task(
    task: RetrievalTask, images: Images | None = None, *, read_pictures: bool = False
) -> tuple[NumberedTask, list[str]]:
    """Number the queries and documents of a task, and list its defects.

    A picture that is missing or changed is left out of its item, so that the task can be scored in spite of it.

    Args:
        task: The task as it was read.
        images: Store of its pictures.
        read_pictures: Whether each picture is read and compared with its id, which is the sha256 of its bytes. Vectors
            are stored under that id, so a changed picture would get the vector of another one.

    Raises:
        FoundryError: The task has no query or no document, or there is no such metric.
    """
    items = [*(query.item for query in task.queries), *(doc.item for doc in task.corpus)]
    referenced = {item.image for item in items if item.image is not None}
    absent = {id_ for id_ in referenced if images is None or id_ not in images}
    stored = sorted(referenced - absent) if images is not None and read_pictures else []
    changed = {id_ for id_ in stored if images is not None and sha256_bytes(images.read(id_)) != id_}
    unusable = frozenset(absent | changed)
    queries = sorted((_without_pictures(row, unusable) for row in task.queries), key=lambda query: query.id)
    docs = sorted((_without_pictures(row, unusable) for row in task.corpus), key=lambda doc: doc.id, reverse=True)
    qrels = Qrels.of(task.qrels)
    numbered = number(task.card, InMemorySide(tuple(queries), images), InMemorySide(tuple(docs), images), qrels)
    problems = defects(numbered, qrels, (task.card.queries, task.card.pool))
    repeated = [f"{query} / {doc}" for query, doc in task.repeated]
    for kind, ids, what in (
        ("query / document", repeated, "judged more than once, of which the last counts"),
        ("picture", absent, "not in the store"),
        ("picture", changed, "in the store under an id that is not its sha256"),
    ):
        problems += [f"{some(kind, ids)} {what}"] if ids else []
    return numbered, problems


def _without_pictures(row: Row, pictures: frozenset[str]) -> Row:
    """The row without its picture, if that is one of `pictures`."""
    return row if row.item.image not in pictures else replace(row, item=Item(text=row.item.text or ""))


def number(card: TaskCard, queries: Side[Query], docs: Side[Document], qrels: Qrels) -> NumberedTask:
    """Number the relevant pairs of a task.

    As in trec_eval, a relevance of 0 or less says that a document is not relevant, and a relevant document that is not
    in the pool still counts, though no search can return it.

    Raises:
        FoundryError: There is no query or no document, or there is no such metric.
    """
    for kind, side in (("query", queries), ("document", docs)):
        if not len(side):
            raise FoundryError(f"Task {card.name}: it has no {kind}.", hint="There is nothing to score.")
    parse_metric(card.metric)
    query, doc = _numbers_of(qrels.query, queries.ids, -1), _numbers_of(qrels.doc, docs.ids, UNREACHABLE)
    relevant = np.flatnonzero((qrels.gain > 0) & (query >= 0))
    order = relevant[np.lexsort((doc[relevant], query[relevant]))]
    return NumberedTask(card, queries, docs, Judgements(query[order], doc[order], qrels.gain[order], len(queries)))


def defects(task: NumberedTask, qrels: Qrels, expected: tuple[int | None, int | None] = (None, None)) -> list[str]:
    """List what is wrong with a task, a line each.

    Args:
        task: The task, numbered from `qrels`.
        qrels: The judgements as published.
        expected: Published numbers of queries and documents; None where there is none.
    """
    lines = []
    for kind, side, expected_rows in (("query", task.queries, expected[0]), ("document", task.docs, expected[1])):
        ids = side.ids
        repeated = _repeated_ids(ids)
        lines += [f"{some(f'{kind} id', repeated)} stand(s) more than once"] if repeated else []
        empty = ids.take(pa.array(is_empty(side.digests(unchanged)))).to_pylist()
        lines += [f"{some(kind, empty)} hold(s) neither text nor picture"] if empty else []
        if expected_rows is not None and expected_rows != len(side):
            lines.append(f"{len(side):,} {kind} rows, {expected_rows:,} expected")
    unknown = _absent_ids(qrels.query, task.queries.ids)
    lines += [f"{some('query', unknown)} of the judgements is not there"] if unknown else []
    pairs = task.judgements
    unreachable = np.flatnonzero(pairs.doc == UNREACHABLE)
    if len(unreachable):
        affected = len(np.unique(pairs.query[unreachable]))
        relevant = qrels.doc.take(pa.array(np.flatnonzero(qrels.gain > 0)))
        outside = some("relevant document", _absent_ids(relevant, task.docs.ids))
        lines.append(f"{outside} of {affected} queries is not in the pool")
    unanswered = task.queries.ids.take(pa.array(np.flatnonzero(pairs.relevant == 0))).to_pylist()
    judged = set(qrels.query.take(pa.array(np.flatnonzero(qrels.gain <= 0))).to_pylist())
    # A query all of whose judgements are 0 is no defect: BEIR has such queries, and they score 0.
    unjudged = [id_ for id_ in unanswered if id_ not in judged]
    lines += [f"{some('query', unjudged)} has no relevant document"] if unjudged else []
    return lines


def content_digest(task: NumberedTask) -> str:
    """Digest all that a score of a task depends on beside the model: ids, contents, judgements, candidates."""
    state = hashlib.sha256()
    for side in (task.queries, task.docs):
        for block in blocks(len(side)):
            state.update("\n".join(side.ids.slice(block.start, len(block)).to_pylist()).encode() + b"\n")
        state.update(side.digests(unchanged).tobytes())
    pairs, candidates = task.judgements, task.candidates or ()
    excluded = () if task.excluded is None else (task.excluded,)
    for numbers in (pairs.query, pairs.doc, pairs.gain, *excluded, *candidates):
        state.update(b"%d:" % len(numbers) + numbers.tobytes())
    return state.hexdigest()


def _numbers_of(ids: pa.Array, side_ids: pa.Array, absent: int) -> NDArray[np.int64]:
    """Row in `side_ids` of each of `ids`; `absent` for those that are not among them."""
    # Only `ids` are put into a hash table: a side may have millions of rows, of which few are judged.
    distinct = pc.unique(ids)
    matches = pc.index_in(side_ids, value_set=distinct)
    # Backwards, so that of rows with equal ids the first is written last and counts.
    rows = np.flatnonzero(matches.is_valid().to_numpy(zero_copy_only=False))[::-1]
    row_of = np.full(len(distinct), absent, np.int64)
    row_of[matches.drop_null().to_numpy()[::-1]] = rows
    numbers: NDArray[np.int64] = row_of[pc.index_in(ids, value_set=distinct).to_numpy()]
    return numbers


def _absent_ids(ids: pa.Array, side_ids: pa.Array) -> list[str]:
    return list(dict.fromkeys(ids.filter(pa.array(_numbers_of(ids, side_ids, -1) < 0)).to_pylist()))


def _repeated_ids(ids: pa.Array) -> list[str]:
    """The ids that occur more than once among sorted ids, where equal ones are adjacent."""
    equal_to_previous = ids.slice(1).filter(pc.equal(ids.slice(1), ids.slice(0, max(len(ids) - 1, 0))))
    return list(dict.fromkeys(equal_to_previous.to_pylist()))


def some(kind: str, ids: Collection[str]) -> str:
    """Name the first of some ids and count the others: ``query 'a', 'b' and 7 more``."""
    named = ", ".join(f"'{id_}'" for id_ in sorted(ids)[:_MAX_NAMED])
    more = f" and {len(ids) - _MAX_NAMED:,} more" if len(ids) > _MAX_NAMED else ""
    return f"{kind} {named}{more}"
