"""BM25 with English stop words over the text of both sides: the classic that needs no training."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np

from gme_data.tasks import Document, Query, TaskCard
from umrb.data.sides import Side
from umrb.data.tasks import NumberedTask
from umrb.metrics import per_query
from umrb.systems.base import QueryScores, Ranking, sides

_STOP_WORDS = "en"


class LexicalSystem:
    """BM25 (Lucene's variant, k1 1.5, b 0.75, as bm25s sets them). Of fused items it reads the text."""

    name = "BM25"

    def applies_to(self, card: TaskCard) -> bool:
        """See `System`."""
        return all("T" in side for side in sides(card.task_type))

    def missing(self, tasks: Sequence[NumberedTask]) -> int:
        """Nothing is encoded."""
        del tasks
        return 0

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Nothing is shared between processes."""
        del tasks

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        """See `System`. A document that shares no word with the query is not returned."""
        index = bm25s.BM25()
        index.index(_tokens(task.docs), show_progress=False)
        found = [_best(index.get_scores(tokens), depth) for tokens in _tokens(task.queries)]
        ranking = Ranking(np.stack([rows for rows, _ in found]), np.stack([scores for _, scores in found]))
        return QueryScores(per_query(ranking.rows, task.judgements, metrics), ranking)


def _tokens(items: Side[Document] | Side[Query]) -> list[list[str]]:
    texts = [item.item.text or "" for item in items]
    tokens: list[list[str]] = bm25s.tokenize(texts, stopwords=_STOP_WORDS, return_ids=False, show_progress=False)
    return tokens


def _best(scores: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The `depth` best rows of scores [n], ties to the lower row; -1 where a document scores nothing."""
    rows = np.argsort(-scores, kind="stable")[:depth]
    kept = scores[rows]
    return np.where(kept > 0, rows, -1).astype(np.int64), kept.astype(np.float32)
