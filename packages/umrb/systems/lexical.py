"""BM25 with English stop words over the text of both sides: the lexical baseline, which needs no training."""

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
    """BM25 (Lucene's variant, k1 1.5, b 0.75: the defaults of bm25s). Of fused items it reads the text alone."""

    name = "BM25"

    def applies_to(self, card: TaskCard) -> bool:
        """See `System`: both sides must have text."""
        return all("T" in side for side in sides(card.task_type))

    def missing(self, tasks: Sequence[NumberedTask]) -> int:
        """Return 0, since nothing is encoded."""
        del tasks
        return 0

    def prepare(self, tasks: Sequence[NumberedTask]) -> None:
        """Do nothing, since no work is shared between processes."""
        del tasks

    def score(self, task: NumberedTask, metrics: Sequence[str], depth: int) -> QueryScores:
        """See `System`. A document that shares no word with the query is not returned."""
        index = bm25s.BM25()
        index.index(_tokens(task.docs), show_progress=False)
        best = [_top_k(index.get_scores(tokens), depth) for tokens in _tokens(task.queries)]
        ranking = Ranking(np.stack([rows for rows, _ in best]), np.stack([scores for _, scores in best]))
        return QueryScores(per_query(ranking.rows, task.judgements, metrics), ranking)


def _tokens(items: Side[Document] | Side[Query]) -> list[list[str]]:
    texts = [item.item.text or "" for item in items]
    tokens: list[list[str]] = bm25s.tokenize(texts, stopwords=_STOP_WORDS, return_ids=False, show_progress=False)
    return tokens


def _top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `k` rows of scores [n] and their scores, ties to the lower row; the row is -1 where the score is 0."""
    rows = np.argsort(-scores, kind="stable")[:k]
    top_scores = scores[rows]
    return np.where(top_scores > 0, rows, -1).astype(np.int64), top_scores.astype(np.float32)
