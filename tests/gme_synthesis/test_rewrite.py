"""The name goes, the question stays."""

from __future__ import annotations

import pytest

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.stages import Reject
from gme_synthesis.steps.entity import EntityStep, LeakCheck
from gme_synthesis.steps.names import replace_names, surviving_name


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


def rewritten(question: str, references: tuple[str, ...], title: str = "Norway") -> Candidate | Reject:
    draft = Candidate("p", "", title=title, aliases=("Kingdom of Norway", "Gambia"), fact="f", question=question)
    (outcome,) = EntityStep(LLMClient(RuleWriter(references=references), None, attempts=1)).run([draft])
    return outcome if isinstance(outcome, Reject) else next(LeakCheck().run([outcome]))


@pytest.mark.parametrize(
    ("question", "title", "fused"),
    [
        ("What is the capital of Norway?", "Norway", "What is the capital of this country?"),
        ("What is the capital of The Gambia?", "The Gambia", "What is the capital of this country?"),
        ("What is the capital of the Kingdom of Norway?", "Norway", "What is the capital of this country?"),
        ("What is the capital?", "Norway", None),
    ],
)
def test_rules_rewrite_by_the_references_of_a_corpus(question: str, title: str, fused: str | None) -> None:
    outcome = rewritten(question, ("this country",), title)
    assert (outcome.fused if isinstance(outcome, Candidate) else None) == fused


def test_a_name_that_comes_back_through_the_reference_is_refused() -> None:
    refused = rewritten("What is the capital of Norway?", ("this Norway",))
    assert isinstance(refused, Reject)
    assert refused.reason == "name-survives"


def test_a_short_question_about_the_pictured_is_still_the_same() -> None:
    outcome = rewritten("Capital of Norway?", ("the country with this flag",))
    assert isinstance(outcome, Candidate)
    assert outcome.fused == "Capital of the country with this flag?"
