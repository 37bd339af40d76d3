from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval
from numbered import number_task

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_data.tasks import RetrievalTask
from umrb.metrics import per_query

MakeTask = Callable[[], RetrievalTask]


def test_documents_are_in_the_order_that_breaks_ties_as_trec_eval(text_task: MakeTask) -> None:
    numbered = number_task(text_task())
    ids = [doc.id for doc in numbered.docs]
    assert ids == sorted(ids, reverse=True)
    for query, doc in zip(numbered.judgements.query, numbered.judgements.doc, strict=True):
        assert numbered.queries[query].id[2:] == numbered.docs[doc].id[2:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {"qrels": {**t.qrels, "q-red": {"d-none": 1}}},
            "'d-none' of 1 queries is not in the pool",
        ),
        (
            lambda t: {"qrels": {k: v for k, v in t.qrels.items() if k != "q-red"}},
            "'q-red' has no relevant document",
        ),
        (lambda t: {"qrels": {**t.qrels, "q-none": {"d-red": 1}}}, "query 'q-none' of the judgements is not there"),
        (lambda t: {"repeated": (("q-red", "d-red"),)}, "query / document 'q-red / d-red' judged more than once"),
        (lambda t: {"corpus": t.corpus[1:], "qrels": {}}, "11 document rows, 12 expected"),
        (
            lambda t: {"corpus": (replace(t.corpus[0], item=Item("a", "no-picture")), *t.corpus[1:])},
            "picture 'no-picture' not in the store",
        ),
        (lambda t: {"corpus": (*t.corpus, t.corpus[0])}, r"document id 'd-blue' stand\(s\) more than once"),
        (lambda t: {"corpus": (replace(t.corpus[0], item=Item(text=" ")), *t.corpus[1:])}, "'d-blue' hold.* neither"),
        (lambda t: {"queries": ()}, "it has no query"),
        (lambda t: {"card": t.card.model_copy(update={"metric": "hitrate_at_5"})}, "Did you mean 'hit_rate'"),
    ],
)
def test_a_task_that_is_not_whole_is_not_scored(
    text_task: MakeTask, change: Callable[[RetrievalTask], dict[str, object]], message: str
) -> None:
    task = text_task()
    with pytest.raises(FoundryError, match=message):
        number_task(replace(task, **change(task)))


def test_relevance_0_and_below_is_legal_and_counts_as_in_trec_eval(text_task: MakeTask) -> None:
    """A query of which everything was judged not relevant scores 0; negative relevance is none."""
    task = text_task()
    ids = sorted(doc.id for doc in task.corpus)
    qrels = {q: {ids[0]: 0, ids[1]: -1} | {d: 2} for q, docs in task.qrels.items() for d in docs}
    qrels["q-red"] = {"d-red": 0}
    numbered = number_task(replace(task, qrels=qrels))
    draw = np.random.default_rng(0)
    scores = draw.permuted(np.tile(np.arange(len(ids), dtype=np.float32), (len(numbered.queries), 1)), axis=1)
    rows = np.argsort(-scores, axis=1)
    run = {
        query.id: {numbered.docs[int(row)].id: float(scores[number, row]) for row in rows[number]}
        for number, query in enumerate(numbered.queries)
    }
    names = {"ndcg_at_10": "ndcg_cut_10", "map_at_10": "map_cut_10", "recall_at_5": "recall_5"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map_cut.10", "recall.5"}).evaluate(run)
    ours = per_query(rows, numbered.judgements, list(names))
    for name, their_name in names.items():
        expected = [theirs[query.id][their_name] for query in numbered.queries]
        np.testing.assert_allclose(ours[name], expected, atol=1e-6)
    assert ours["ndcg_at_10"][[query.id for query in numbered.queries].index("q-red")] == 0
