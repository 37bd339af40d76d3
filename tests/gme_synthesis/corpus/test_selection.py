"""Assembly by recipes, each example once, no query of a held-out task, fair shares where a source is capped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gme_data.examples import Example
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.corpus.assembly import Assembler
from gme_synthesis.corpus.atlas import RECIPES
from gme_synthesis.corpus.example_buffer import ExampleBuffer
from gme_synthesis.steps.contamination import HeldOutQueries

DRAFT = Candidate(
    "no-p",
    "Norway. Capital: Oslo.",
    title="Norway",
    entity_group="place:no",
    section="Government",
    facts={"capital": "Oslo"},
    fact="no-f",
    question="Capital of Norway?",
    answer="Oslo",
    fused="Capital of this country?",
    picture="no-map",
    page="no-page",
    licence="CC0-1.0",
    entity_images=(EntityImage("no-t", "search"), EntityImage("no-o", "search")),
)


def assemble(draft: Candidate = DRAFT) -> dict[str, Example]:
    assembler = Assembler(RECIPES, lambda _: "CC-BY-4.0", lambda _: draft.page, lambda _: "train", max_images=1)
    return {
        example.task_type: example
        for example in (*assembler.named_examples(draft), *assembler.pictured_examples(draft))
    }


def test_one_draft_makes_five_task_types() -> None:
    examples = assemble()
    assert {name: (e.query, e.positive) for name, e in examples.items()} == {
        "T->T": (Item("Capital of Norway?"), Item(DRAFT.text)),
        "T->VD": (Item("Capital of Norway?"), Item(image="no-page")),
        "T->IT": (Item("Capital of Norway?"), Item(DRAFT.text, "no-map")),
        "IT->T": (Item("Capital of this country?", "no-t"), Item(DRAFT.text)),
        "IT->IT": (Item("Capital of this country?", "no-t"), Item(DRAFT.text, "no-o")),
    }
    assert {e.batch_key for e in examples.values()} == {"Government/capital"}
    assert {e.answer for e in examples.values()} == {"Oslo"}
    assert examples["T->T"].licence == "CC0-1.0"
    assert examples["IT->T"].licence == "CC-BY-4.0 AND CC0-1.0"
    assert len({e.id for e in examples.values()}) == 5
    assert assemble() == examples


def test_what_is_missing_makes_no_example() -> None:
    assert set(assemble(replace(DRAFT, page="", picture=""))) == {"T->T", "IT->T", "IT->IT"}
    assert set(assemble(replace(DRAFT, entity_images=DRAFT.entity_images[:1]))) == {"T->T", "T->VD", "T->IT", "IT->T"}


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[ExampleBuffer]:
    with closing(ExampleBuffer(tmp_path / "buffer.sqlite", 0)) as opened:
        yield opened


def test_duplicates_are_known_and_examples_come_back_whole(buffer: ExampleBuffer) -> None:
    example = replace(assemble()["IT->T"], negatives=(Item("other"), Item(image="picture")), instruction=None)
    spoilt = assemble()["T->T"]
    assert not buffer.add(example, is_accepted=True)
    assert not buffer.add(spoilt, is_accepted=False)
    for earlier in (example, spoilt):
        assert buffer.add(replace(earlier, id="again"), is_accepted=True) == earlier.id
    others = [replace(example, task_type="IT->IT"), replace(example, negatives=example.negatives[:1])]
    assert not any(buffer.add(other, is_accepted=True) for other in others)
    buffer.finalize()
    assert sorted(buffer.examples(), key=repr) == sorted([example, *others], key=repr)


def test_a_training_query_that_a_task_of_the_corpus_asks_is_refused(tmp_path: Path) -> None:
    card = TaskCard(
        name="t", task_type="IT->T", metric="ndcg_at_10", instruction=None, split="test", subset="unseen",
        description="", relevance="", licences=("CC0-1.0",), images="../images", queries=2, pool=1,
    )  # fmt: skip
    held_out = (Item("capital of norway"), Item("capital of this country", "another picture"))
    queries = tuple(Query(str(n), item, "g", "s", "CC0-1.0") for n, item in enumerate(held_out))
    documents = (Document("d", Item(DRAFT.text), "g", "CC0-1.0"),)  # of the corpus, and trained on all the same
    save_task(tmp_path / "test" / "t", RetrievalTask(card, documents, queries, {"0": {"d": 1}, "1": {"d": 1}}))
    queries_of_tasks = HeldOutQueries(tmp_path)
    refused = {name for name, example in assemble().items() if queries_of_tasks.reject(example)}
    assert refused == {"T->T", "T->VD", "T->IT"}


def test_balance_serves_batch_keys_in_turn_by_a_seed(tmp_path: Path) -> None:
    template = assemble()["T->T"]
    many = [replace(template, id=f"many{n}", batch_key="many", query=Item(f"m{n}")) for n in range(50)]
    few = [replace(template, id=f"few{n}", batch_key="few", query=Item(f"f{n}")) for n in range(3)]
    capped = cap_to_ten(tmp_path / "first", [*many, *few], seed=0)
    assert Counter(example.batch_key for example in capped) == {"many": 7, "few": 3}
    assert cap_to_ten(tmp_path / "other-order", [*few, *reversed(many)], seed=0) == capped
    assert cap_to_ten(tmp_path / "other-seed", [*many, *few], seed=1) != capped


def cap_to_ten(path: Path, examples: list[Example], seed: int) -> list[Example]:
    with closing(ExampleBuffer(path, seed)) as buffer:
        for example in examples:
            buffer.add(example, is_accepted=True)
        buffer.finalize()
        assert len(list(buffer.cap({"place-question": 10}))) == 43
        return list(buffer.examples())
