from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numbered import load_tasks, number_task

from gme_data.images import ImageStore
from gme_data.items import Item
from gme_data.tasks import RetrievalTask
from umrb.baselines import raw_pixels
from umrb.data.controls import shuffle_pictures
from umrb.data.sides import InMemorySide, fused_text, picture_only, text_only, unchanged
from umrb.systems.base import DenseSystem, Encoder, sides
from umrb.systems.lexical import LexicalSystem
from umrb.systems.vectors import VectorStore


class Counting:
    """Encodes a text as counts of its letters and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str | None]] = []

    def __call__(self, items: Sequence[Item], instruction: str | None, images: ImageStore | None) -> np.ndarray:
        self.asked += [(item.text, instruction) for item in items]
        letters = [
            [(item.text or "").count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] for item in items
        ]
        vectors = np.array(letters, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_content_is_encoded_once_whichever_task_asks(tmp_path: Path, text_task: Callable[[], RetrievalTask]) -> None:
    counting = Counting()
    system = DenseSystem("letters", Encoder("letters", counting, frozenset("T")), VectorStore(tmp_path))
    task = number_task(text_task())
    first = system.score(task, ["hit_rate_at_1"], 5)
    repeated = system.score(task, ["hit_rate_at_1"], 5)
    assert len(counting.asked) == len(set(counting.asked)) == len(task.docs) + len(task.queries)
    assert {instruction for text, instruction in counting.asked if text and text.startswith("Which")} == {
        task.card.instruction
    }
    assert {instruction for text, instruction in counting.asked if text and text.startswith("The")} == {None}
    np.testing.assert_array_equal(first.ranking.rows, repeated.ranking.rows)


def test_sides_and_what_a_one_sided_encoder_can_see(corpus: Path) -> None:
    assert sides("IT->VD") == (frozenset("IT"), frozenset("I"))
    tasks = load_tasks(corpus / "tasks" / "test")
    text = DenseSystem("t", Encoder("t", Counting(), frozenset("T"), text_only), VectorStore(corpus / ".unused"))
    assert [t.card.task_type for t in tasks if text.applies_to(t.card)] == ["T->T", "T->IT", "IT->T", "IT->IT"]
    picture = DenseSystem("p", Encoder("p", Counting(), frozenset("I"), picture_only), VectorStore(corpus / ".unused"))
    assert [t.card.task_type for t in tasks if picture.applies_to(t.card)] == ["I->I", "IT->I", "IT->IT"]


def test_views_take_away_what_a_frozen_encoder_is_not_given() -> None:
    item = Item("a", "b")
    assert unchanged(item) == item
    assert text_only(item) == fused_text(item) == Item(text="a")
    assert picture_only(item) == Item(image="b")
    assert fused_text(Item(image="b")) == Item(image="b")
    assert picture_only(Item(text="a")) == Item(text="a")


def test_bm25_finds_by_words_drops_stop_words_and_returns_nothing_for_none(
    text_task: Callable[[], RetrievalTask],
) -> None:
    task = number_task(text_task())
    outcome = LexicalSystem().score(task, ["hit_rate_at_1"], 5)
    assert outcome.metrics["hit_rate_at_1"].mean() == 1.0
    shared_only = [query.item.text for query in task.queries]
    assert all("square" in (text or "") for text in shared_only)
    # Every document holds "square"; nothing else of the question may match, so scores beyond the first are all equal.
    other_scores = outcome.ranking.scores[:, 1:]
    assert np.allclose(other_scores, other_scores[:, :1])


def test_raw_pixels_see_colour_and_are_unit_vectors(corpus: Path, tmp_path: Path) -> None:
    folder = corpus / "tasks" / "test"
    system = DenseSystem("pixels", raw_pixels(21), VectorStore(tmp_path))
    task = load_tasks(folder, ["colour-i2i"])[0]
    assert system.score(task, ["hit_rate_at_1"], 5).metrics["hit_rate_at_1"].mean() > 0.9
    items, images, _ = task.docs.window(range(len(task.docs)))
    vectors = system.encoder.encode(items, None, images)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_shuffled_pictures_belong_to_another_entity(corpus: Path) -> None:
    task = load_tasks(corpus / "tasks" / "test", ["colour-it2t"])[0]
    shuffled = shuffle_pictures(task, seed=0)
    assert shuffled is not None
    owner = {query.item.image: query.entity_group for query in task.queries}
    for before, after in zip(task.queries, shuffled.queries, strict=True):
        assert (after.id, after.item.text) == (before.id, before.item.text)
        assert owner[after.item.image] != before.entity_group
    assert sorted(q.item.image or "" for q in shuffled.queries) == sorted(q.item.image or "" for q in task.queries)


def test_no_control_where_one_entity_owns_most_queries(corpus: Path) -> None:
    from dataclasses import replace

    task = load_tasks(corpus / "tasks" / "test", ["colour-it2t"])[0]
    same_entity = tuple(replace(query, entity_group="one") for query in task.queries)
    assert shuffle_pictures(replace(task, queries=InMemorySide(same_entity)), seed=0) is None


@pytest.mark.parametrize("seed", [0, 1])
def test_the_control_depends_on_nothing_but_the_seed(corpus: Path, seed: int) -> None:
    task = load_tasks(corpus / "tasks" / "test", ["colour-it2t"])[0]
    assert shuffle_pictures(task, seed) == shuffle_pictures(task, seed)
