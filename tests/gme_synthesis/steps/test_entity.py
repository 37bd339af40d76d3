"""A rewritten question is accepted only if no name survives and it asks the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.stages import Reject
from gme_synthesis.steps.entity import EntityStep, LeakCheck, leaked_name

PASSAGE = Candidate(
    "iris",
    "Iris pseudacorus, the yellow flag, is a flowering plant native to Europe, western Asia and northwest Africa.",
    title="Iris pseudacorus",
    aliases=("yellow flag",),
)


class Says:
    """A model that always says the same."""

    name, reads_hints = "says", False

    def __init__(self, **answer: object) -> None:
        self._text = json.dumps(answer)

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        for number, _ in enumerate(requests):
            on_completion(number, Completion(self._text))


def rewritten(question: str, entity: str, fused: str) -> Candidate | Reject:
    step = EntityStep(LLMClient(Says(entity=entity, question=fused), None))
    (outcome,) = step.run([replace(PASSAGE, question=question)])
    return outcome if isinstance(outcome, Reject) else next(LeakCheck().run([outcome]))


def test_the_rewrite_of_the_paper_is_taken() -> None:
    outcome = rewritten("Where is Iris pseudacorus native?", "Iris pseudacorus", "Where is this plant native?")
    assert isinstance(outcome, Candidate)
    assert (outcome.entity, outcome.fused) == ("Iris pseudacorus", "Where is this plant native?")


@pytest.mark.parametrize(
    ("fused", "reason"),
    [
        ("Where is Iris pseudacorus native?", "name-not-replaced"),
        ("Where is this iris pseudacorus native?", "name-survives"),
        ("Where is this Iris native?", None),  # "this iris" is what it is called instead, not a name that survived
        ("Where is the pseudacorus plant native?", "name-survives"),
        ("Where is this plant, the yellow flag, native?", "name-survives"),
        ("Where is it native then?", "no-reference"),
        ("How tall does this plant grow in wet ground?", "another-question"),
    ],
)
def test_leaks_and_strays_are_refused(fused: str, reason: str | None) -> None:
    outcome = rewritten("Where is Iris pseudacorus native?", "Iris pseudacorus", fused)
    assert (outcome.reason if isinstance(outcome, Reject) else None) == reason


def test_an_entity_that_is_not_asked_about_is_refused() -> None:
    outcome = rewritten("Where is Iris pseudacorus native?", "Rosa canina", "Where is this plant native?")
    assert isinstance(outcome, Reject)
    assert outcome.reason == "entity-not-in-question"


@pytest.mark.parametrize(
    ("text", "names", "leak"),
    [
        ("How long is this bridge?", ("Forth Bridge",), None),
        ("How long is this Forth crossing?", ("Firth of Forth Bridge",), None),
        ("How long is the Forth crossing?", ("Firth of Forth Bridge",), "Forth"),
        ("Who painted this?", ("Vincent van Gogh",), None),
        ("When did Gogh paint this?", ("Vincent van Gogh",), "Gogh"),
        ("When was 埃菲尔铁塔 built?", ("埃菲尔铁塔",), "埃菲尔铁塔"),
        ("埃菲尔铁塔是什么时候建成的", ("埃菲尔铁塔",), "埃菲尔铁塔"),
        ("หอไอเฟลสร้างเมื่อใด", ("หอไอเฟล",), "หอไอเฟล"),
        ("Who founded Cordoba?", ("Córdoba",), "Cordoba"),
        ("Who founded Co\u0301rdoba?", ("C\u00f3rdoba",), "Cordoba"),
        ("What did Exupéry write?", ("Saint-Exupéry",), "Exupery"),
        ("How do red pandas live?", ("red panda",), "red panda"),
        ("What uses this country?", ("US",), None),
    ],
)
def test_parts_of_names_leak_and_common_words_do_not(text: str, names: tuple[str, ...], leak: str | None) -> None:
    assert leaked_name(text, names) == leak


@pytest.mark.parametrize(
    ("asked", "entity"),
    [("How do red pandas live in trees?", "red panda"), ("Who founded Cordoba in Spain?", "Córdoba")],
)
def test_an_entity_may_be_asked_about_in_another_form(asked: str, entity: str) -> None:
    fused = "How do these animals live in trees?"
    (outcome,) = EntityStep(LLMClient(Says(entity=entity, question=fused), None)).run(
        [replace(PASSAGE, question=asked)]
    )
    assert isinstance(outcome, Candidate)


@pytest.mark.parametrize("blank", ["   ", "\t\n", " \x1c "])
def test_answers_of_white_space_are_none(blank: str) -> None:
    for entity, fused in ((blank, "Where is this plant native?"), ("Iris pseudacorus", blank * 8)):
        refused = rewritten("Where is Iris pseudacorus native?", entity, fused)
        assert isinstance(refused, Reject)
        assert refused.reason == "wrong-fields"


def test_an_entity_is_a_word_of_the_question() -> None:
    outcome = rewritten("Where is Iris pseudacorus native?", "cor", "Where is this plant native?")
    assert isinstance(outcome, Reject)
    assert outcome.reason == "entity-not-in-question"
