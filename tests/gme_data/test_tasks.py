"""A task survives a round trip, its rows sorted."""

from __future__ import annotations

from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, list_tasks, load_task, save_task


def test_task_round_trip(tmp_path: Path) -> None:
    card = TaskCard(
        name="t",
        task_type="T->I",
        metric="hit_rate_at_5",
        instruction=None,
        split="test",
        subset="unseen",
        description="d",
        relevance="r",
        licences=("x",),
        images="../images",
        queries=2,
        pool=2,
    )
    task = RetrievalTask(
        card,
        corpus=(Document("b", Item(None, "i1"), "g1", "x"), Document("a", Item(None, "i2"), "g2", "x")),
        queries=(Query("q2", Item("two"), "g2", "en", "x"), Query("q1", Item("one"), "g1", "en", "x")),
        qrels={"q2": {"a": 1}, "q1": {"b": 1, "a": 1}},
    )
    save_task(tmp_path / "t", task)
    loaded = load_task(tmp_path / "t")
    assert loaded.card == card
    assert [doc.id for doc in loaded.corpus] == ["a", "b"]
    assert loaded.qrels == task.qrels
    assert list_tasks(tmp_path) == [tmp_path / "t"]
    with pytest.raises(FoundryError, match="No tasks in"):
        list_tasks(tmp_path / "t")
