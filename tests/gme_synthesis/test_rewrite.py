"""The name goes, the question stays."""

from __future__ import annotations

import pytest

from gme_synthesis.records import Draft, Reject
from gme_synthesis.rewrite import EntityRewriter, replace_names, surviving_name
from gme_synthesis.world import World


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of Norway?", "What is the capital of the pictured country?"),
        ("What is the capital of the Kingdom of Norway?", "What is the capital of the pictured country?"),
        ("Norway: capital?", "The pictured country: capital?"),
        ("What is norway's capital?", "What is this country's capital?"),
        ("Norway and NORWAY", "The pictured country and the pictured country"),
        ("The Norwayans live where?", "The Norwayans live where?"),
    ],
)
def test_every_mention_is_replaced(question: str, expected: str) -> None:
    names = ("Kingdom of Norway", "Norway")
    assert replace_names(question, names, "the pictured country", before_possessive="this country") == expected


def test_a_short_name_is_no_common_word() -> None:
    assert replace_names("Tell us of US law", ("US",), "this country", before_possessive="x") == (
        "Tell us of this country law"
    )
    assert surviving_name("tell us", ("US",)) is None
    assert surviving_name("tell US", ("US",)) == "US"


def test_rewriter_keeps_question_and_fact_and_refuses_what_it_cannot_hide(tiny_world: World) -> None:
    rewriter = EntityRewriter(tiny_world.places, tiny_world.facts, ("this country",), seed=0)
    drafts = [
        Draft("no-f", 0, "What is the capital of Norway?"),
        Draft("gm-f", 0, "What is the capital of The Gambia?"),
        Draft("no-f", 1, "What is the capital?"),
    ]
    kept, also_kept, refused = list(rewriter.run(drafts))
    assert isinstance(kept, Draft)
    assert isinstance(also_kept, Draft)
    assert kept.fused == also_kept.fused == "What is the capital of this country?"
    assert kept.question == drafts[0].question
    assert refused == Reject("entity", "name-not-found", "no-f", "What is the capital?")


def test_a_name_that_comes_back_through_the_reference_is_refused(tiny_world: World) -> None:
    rewriter = EntityRewriter(tiny_world.places, tiny_world.facts, ("this Norway",), seed=0)
    (refused,) = rewriter.run([Draft("no-f", 0, "Capital of Norway?")])
    assert isinstance(refused, Reject)
    assert refused.reason == "name-survives"
