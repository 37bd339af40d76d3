"""Step 2, a question from the passage (Doc2Query), by any language model or by rules.

A question is accepted only if it is about this passage: its answer occurs there, the two share words, and the question
neither mentions "the passage" nor gives the answer away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.answers import QuestionAnswer
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.prompts import Prompt, load_prompt
from gme_synthesis.llm.protocol import CompletionRequest
from gme_synthesis.stages import Reject, Stage

_ABOUT_THE_TEXT = re.compile(r"\b(?:the|this) (?:passage|text|article|paragraph|document|author)\b", re.IGNORECASE)
_MIN_WORD_CHARS = 4
"""Shorter words, such as "the", "of" and "who", are shared by unrelated texts."""


class QuestionStep:
    """Writes one question for each candidate."""

    def __init__(self, client: LLMClient, prompt: Prompt | None = None) -> None:
        self._client, self._prompt = client, prompt or load_prompt("question")

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("question", ("text",), ("question", "answer"), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `text`. Output columns: `question`, `answer`."""
        requests = [CompletionRequest(self._prompt, {"passage": each.text}, each.hints) for each in candidates]
        for candidate, answer in zip(candidates, self._client.ask(requests), strict=True):
            if not isinstance(answer, QuestionAnswer):
                yield Reject("question", str(answer), candidate.subject, candidate.text[:200])
                continue
            # A draft's fact and wording are fixed, so its writer has no choice that could go wrong.
            problem = question_problem(answer.question, answer.answer, candidate.text, free_choice=not candidate.fact)
            if problem:
                yield Reject("question", problem, candidate.subject, f"{answer.question} / {answer.answer}")
            else:
                yield replace(candidate, question=answer.question, answer=answer.answer)


def question_problem(question: str, answer: str, passage: str, *, free_choice: bool = True) -> str:
    """Returns why a question is not one about the passage; empty if it is.

    Args:
        question: The question.
        answer: The answer.
        passage: The passage, which must contain the answer.
        free_choice: Whether the writer chose what to ask and in which words. A fixed wording of a fixed fact can't go
            astray, and if it contains the answer, that is in the name of the entity, which the rewrite removes.
    """
    if not _normalised(answer) or _normalised(answer) not in _normalised(passage):
        return "answer-not-in-passage"
    if not free_choice:
        return ""
    if _ABOUT_THE_TEXT.search(question):
        return "about-the-text"
    if f" {_normalised(answer)} " in f" {_normalised(question)} ":
        return "answer-in-question"
    if not _long_words(question) & _long_words(passage):
        return "not-about-the-passage"
    return ""


def _normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _long_words(text: str) -> frozenset[str]:
    """Returns the words of four letters and more; of text that is not ASCII the letters, as it may have no spaces."""
    words = re.findall(r"\w+", text.casefold())
    long = frozenset(word for word in words if len(word) >= _MIN_WORD_CHARS and word.isascii())
    return long | frozenset(letter for word in words if not word.isascii() for letter in word)
