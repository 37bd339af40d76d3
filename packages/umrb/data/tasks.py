"""Retrieval tasks made ready to be scored: ordered, numbered, checked.

Documents stand by id, descending: the search breaks ties by the lower row, and so ties fall as in trec_eval. A task
with defects is refused where scores must mean something; elsewhere they are listed. Knows no model and no score.
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
from umrb.data.sides import InMemorySide, Side, as_given, blocks, is_empty

_SHOWN = 3
Row = TypeVar("Row", Query, Document)


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
    """Judged pairs as they are published: three columns of one length; gains may be 0 or less."""

    query: pa.Array
    doc: pa.Array
    gain: Floats

    @classmethod
    def of(cls, qrels: dict[str, dict[str, int]]) -> Qrels:
        """From the dict of dicts that tasks hold.

        Raises:
            FoundryError: An id or a gain is null.
        """
        pairs = [(query, doc, gain) for query, found in qrels.items() for doc, gain in found.items()]
        query, doc, gain = zip(*pairs, strict=True) if pairs else ((), (), ())
        found = cls(pa.array(query, pa.string()), pa.array(doc, pa.string()), np.array(gain, dtype=np.float64))
        if found.query.null_count or found.doc.null_count or np.isnan(found.gain).any():
            raise FoundryError("A judgement has no query, no document or no relevance.", hint="Leave it out.")
        return found


def check_task(
    task: RetrievalTask, images: Images | None = None, *, read_pictures: bool = False
) -> tuple[NumberedTask, list[str]]:
    """Number the queries and documents of a task, and list its defects.

    A picture that can't be had is left out of its item, so that the task can be scored in spite of it.

    Args:
        task: As it was read.
        images: Where its pictures are.
        read_pictures: Whether each picture is read and compared with its id, which names its bytes. Vectors are kept
            under that id, and would be taken for those of other bytes.

    Raises:
        FoundryError: It has no query or no document, or its metric is not known.
    """
    items = [*(query.item for query in task.queries), *(doc.item for doc in task.corpus)]
    named = {item.image for item in items if item.image is not None}
    absent = {id_ for id_ in named if images is None or id_ not in images}
    stored = sorted(named - absent) if images is not None and read_pictures else []
    changed = {id_ for id_ in stored if images is not None and sha256_bytes(images.read(id_)) != id_}
    lost = frozenset(absent | changed)
    asked = sorted((_without(row, lost) for row in task.queries), key=lambda query: query.id)
    pool = sorted((_without(row, lost) for row in task.corpus), key=lambda doc: doc.id, reverse=True)
    qrels = Qrels.of(task.qrels)
    numbered = number(task.card, InMemorySide(tuple(asked), images), InMemorySide(tuple(pool), images), qrels)
    problems = defects(numbered, qrels, (task.card.queries, task.card.pool))
    repeated = [f"{query} / {doc}" for query, doc in task.repeated]
    for kind, ids, what in (
        ("query / document", repeated, "judged more than once, of which the last counts"),
        ("picture", absent, "not in the store"),
        ("picture", changed, "in the store under an id that is not its sha256"),
    ):
        problems += [f"{some(kind, ids)} {what}"] if ids else []
    return numbered, problems


def _without(row: Row, pictures: frozenset[str]) -> Row:
    """The row, its picture left out if it is one of `pictures`."""
    return row if row.item.image not in pictures else replace(row, item=Item(text=row.item.text or ""))


def number(card: TaskCard, queries: Side[Query], docs: Side[Document], qrels: Qrels) -> NumberedTask:
    """Number the judged pairs of a task. A relevant document that is not there counts, and can't be found.

    A relevance of 0 or less is a judgement that a document is not relevant, as in trec_eval.

    Raises:
        FoundryError: There is no query or no document, or the metric is not known.
    """
    for kind, side in (("query", queries), ("document", docs)):
        if not len(side):
            raise FoundryError(f"Task {card.name}: it has no {kind}.", hint="There is nothing to score.")
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
        found += [f"{some(f'{kind} id', twice)} stand(s) more than once"] if twice else []
        empty = ids.take(pa.array(is_empty(side.digests(as_given)))).to_pylist()
        found += [f"{some(kind, empty)} hold(s) neither text nor picture"] if empty else []
        if number_of is not None and number_of != len(side):
            found.append(f"{len(side):,} {kind} rows, {number_of:,} expected")
    lost = _absent(qrels.query, task.queries.ids)
    found += [f"{some('query', lost)} of the judgements is not there"] if lost else []
    pairs = task.judgements
    nowhere = np.flatnonzero(pairs.doc == UNREACHABLE)
    if len(nowhere):
        blind = len(np.unique(pairs.query[nowhere]))
        relevant = qrels.doc.take(pa.array(np.flatnonzero(qrels.gain > 0)))
        outside = some("relevant document", _absent(relevant, task.docs.ids))
        found.append(f"{outside} of {blind} queries is not in the pool")
    unanswered = task.queries.ids.take(pa.array(np.flatnonzero(pairs.relevant == 0))).to_pylist()
    judged = set(qrels.query.take(pa.array(np.flatnonzero(qrels.gain <= 0))).to_pylist())
    # Judged, and nothing found relevant: BEIR has such queries, and they score 0.
    unjudged = [id_ for id_ in unanswered if id_ not in judged]
    found += [f"{some('query', unjudged)} has no relevant document"] if unjudged else []
    return found


def content_digest(task: NumberedTask) -> str:
    """Digest of all that a score of a task depends on beside the model: ids, contents, judgements, candidates."""
    found = hashlib.sha256()
    for side in (task.queries, task.docs):
        for block in blocks(len(side)):
            found.update("\n".join(side.ids.slice(block.start, len(block)).to_pylist()).encode() + b"\n")
        found.update(side.digests(as_given).tobytes())
    pairs, among = task.judgements, task.candidates or ()
    excluded = () if task.excluded is None else (task.excluded,)
    for numbers in (pairs.query, pairs.doc, pairs.gain, *excluded, *among):
        found.update(b"%d:" % len(numbers) + numbers.tobytes())
    return found.hexdigest()


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


def some(kind: str, ids: Collection[str]) -> str:
    """``query 'a', 'b' and 7 more``."""
    shown = ", ".join(f"'{id_}'" for id_ in sorted(ids)[:_SHOWN])
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return f"{kind} {shown}{more}"
