"""An answer of a model is accepted only if it is a question about the passage."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.stages import Reject
from gme_synthesis.steps.question import QuestionStep

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


def asked(question: str, answer: str) -> Candidate | Reject:
    (outcome,) = QuestionStep(LLMClient(Says(question=question, answer=answer), None)).run([PASSAGE])
    return outcome


def test_a_good_question_is_taken() -> None:
    outcome = asked(" Where is  Iris pseudacorus native? ", "Europe, western Asia")
    assert outcome == replace(PASSAGE, question="Where is Iris pseudacorus native?", answer="Europe, western Asia")


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Where is Iris pseudacorus native?", "Japan", "answer-not-in-passage"),
        ("What does the passage say of Europe?", "native to Europe", "about-the-text"),
        ("Is Iris pseudacorus native to Europe?", "Europe", "answer-in-question"),
        ("Who won the game on Sunday night?", "Europe", "not-about-the-passage"),
        ("HACKED HACKED", "HACKED", "answer-not-in-passage"),
    ],
)
def test_what_is_no_question_about_the_passage(question: str, answer: str, reason: str) -> None:
    outcome = asked(question, answer)
    assert isinstance(outcome, Reject)
    assert outcome.reason == reason
