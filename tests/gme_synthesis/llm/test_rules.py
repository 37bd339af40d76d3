"""The writer by rules answers as a model would, and rewrites by the references of a corpus."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.stages import Reject
from gme_synthesis.steps.entity import EntityStep, LeakCheck
from gme_synthesis.steps.question import QuestionStep

PASSAGE = Candidate(
    "iris",
    "Iris pseudacorus, the yellow flag, is a flowering plant native to Europe, western Asia and northwest Africa.",
    title="Iris pseudacorus",
    aliases=("yellow flag",),
)


def test_rules_answer_as_a_model_would() -> None:
    passage = replace(PASSAGE, kind="plant", facts={"origin": "Europe", "height": "150 cm"})
    client = LLMClient(RuleWriter(), None)
    (written,) = QuestionStep(client).run([passage])
    assert isinstance(written, Candidate)
    assert written.answer == "Europe"  # the height does not stand in the passage
    assert "origin" in written.question
    (fused,) = EntityStep(client).run([written])
    assert isinstance(fused, Candidate)
    assert "this plant" in fused.fused
    assert next(LeakCheck().run([fused])) == fused
    (nothing,) = QuestionStep(client).run([PASSAGE])
    assert isinstance(nothing, Reject)
    assert nothing.reason == "wrong-fields"


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
