"""Assembly, deduplication and balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.items import Item
from gme_synthesis.assembly import NAMED_RECIPES, PICTURED_RECIPES, assemble
from gme_synthesis.decontamination import decontaminate
from gme_synthesis.records import Draft
from gme_synthesis.selection import balance, deduplicate, require_all_task_types
from gme_synthesis.world import World

DRAFT = Draft("no-f", 0, "Capital of Norway?", "Capital of this country?", "no-t", "no-o", "no-t")


def made(world: World) -> dict[str, Example]:
    return {example.task_type: example for example in assemble([DRAFT], (*NAMED_RECIPES, *PICTURED_RECIPES), world)}


def test_one_draft_makes_five_task_types(tiny_world: World) -> None:
    examples = made(tiny_world)
    text = tiny_world.passages["no-p"].text
    assert {name: (e.query, e.positive) for name, e in examples.items()} == {
        "T->T": (Item("Capital of Norway?"), Item(text)),
        "T->VD": (Item("Capital of Norway?"), Item(image="no-page")),
        "T->IT": (Item("Capital of Norway?"), Item(text, "no-t")),
        "IT->T": (Item("Capital of this country?", "no-t"), Item(text)),
        "IT->IT": (Item("Capital of this country?", "no-t"), Item(text, "no-o")),
    }
    assert {e.batch_key for e in examples.values()} == {"Government/capital"}
    assert {e.answer for e in examples.values()} == {"Oslo"}
    assert examples["T->T"].licence == "CC0-1.0"
    assert examples["IT->T"].licence == "CC-BY-4.0 AND CC0-1.0"


def test_ids_are_digests_of_content(tiny_world: World) -> None:
    again = made(tiny_world)
    assert {e.id for e in made(tiny_world).values()} == {e.id for e in again.values()}
    assert len({e.id for e in again.values()}) == 5


def test_duplicates_go_but_not_other_task_types(tiny_world: World) -> None:
    examples = list(made(tiny_world).values())
    kept, rejects = deduplicate([*examples, replace(examples[0], id="again")])
    assert kept == examples
    assert [reject.subject for reject in rejects] == ["again"]


def test_a_training_query_that_the_benchmark_asks_is_refused(tiny_world: World) -> None:
    examples = list(made(tiny_world).values())
    fused = next(example for example in examples if example.task_type == "IT->T")
    benchmark = frozenset({("capital of norway", None), ("capital of this country", "another picture")})
    kept, rejects = decontaminate(examples, benchmark)
    assert {example.task_type for example in kept} == {"IT->T", "IT->IT"}
    assert fused in kept
    assert {reject.reason for reject in rejects} == {"query-of-a-benchmark"}


def test_balance_serves_batch_keys_in_turn_and_keeps_the_surplus_as_rejects(tiny_world: World) -> None:
    one = made(tiny_world)["T->T"]
    many = [replace(one, id=f"many{n}", batch_key="many") for n in range(50)]
    few = [replace(one, id=f"few{n}", batch_key="few") for n in range(3)]
    kept, rejects = balance([*many, *few], {"place-question": 10}, seed=0)
    assert Counter(example.batch_key for example in kept) == {"many": 7, "few": 3}
    assert len(rejects) == 43
    again, _ = balance([*few, *reversed(many)], {"place-question": 10}, seed=0)
    assert again == kept


def test_a_missing_task_type_is_named(tiny_world: World) -> None:
    with pytest.raises(FoundryError, match=r"I->I, T->I, I->T, IT->I\."):
        require_all_task_types(list(made(tiny_world).values()))
