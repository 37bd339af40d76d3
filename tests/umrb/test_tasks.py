from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_data.tasks import RetrievalTask
from umrb.tasks import load_tasks, number_task

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
        (lambda t: {"qrels": {**t.qrels, "q-red": {"d-red": 0}}}, "is 0, not 1 or more"),
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


def test_an_unknown_task_name_lists_the_known_ones(corpus: Path) -> None:
    with pytest.raises(FoundryError, match="No task nothing") as caught:
        load_tasks(corpus / "tasks" / "test", ["nothing"])
    assert "colour-t2vd" in (caught.value.hint or "")
