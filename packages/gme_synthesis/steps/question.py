"""Step 2, a question from the passage (Doc2Query), by any language model or by rules.

What comes back is only taken if it is a question about this passage: its answer stands there, it shares words with it,
and it neither talks about "the passage" nor gives the answer away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.answers import QuestionAnswer
from gme_synthesis.llm.asking import Asker
from gme_synthesis.llm.prompts import Prompt, load_prompt
from gme_synthesis.llm.protocol import Request
from gme_synthesis.stages import Reject, Stage

_ABOUT_THE_TEXT = re.compile(r"\b(?:the|this) (?:passage|text|article|paragraph|document|author)\b", re.IGNORECASE)
_LETTERS_OF_A_WORD = 4


class QuestionStep:
    """Writes one question for each candidate."""

    def __init__(self, asker: Asker, prompt: Prompt | None = None) -> None:
        self._asker, self._prompt = asker, prompt or load_prompt("question")

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("question", ("text",), ("question", "answer"), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `text`. Output columns: `question`, `answer`."""
        requests = [Request(self._prompt, {"passage": one.text}, one.hints) for one in candidates]
        for candidate, answer in zip(candidates, self._asker.ask(requests), strict=True):
            if not isinstance(answer, QuestionAnswer):
                yield Reject("question", str(answer), candidate.subject, candidate.text[:200])
                continue
            problem = question_problem(answer.question, answer.answer, candidate.text, own_words=not candidate.fact)
            if problem:
                yield Reject("question", problem, candidate.subject, f"{answer.question} / {answer.answer}")
            else:
                yield replace(candidate, question=answer.question, answer=answer.answer)


def question_problem(question: str, answer: str, passage: str, *, own_words: bool = True) -> str:
    """Why a question with its answer can't be asked of the passage; empty if it can.

    Args:
        question: The question.
        answer: Its answer.
        passage: What must hold the answer.
        own_words: The writer chose what to ask and how. A given wording of a given fact does not stray, and what it has
            of the answer stands in the name of the entity, which the rewrite takes out.
    """
    if not _folded(answer) or _folded(answer) not in _folded(passage):
        return "answer-not-in-passage"
    if not own_words:
        return ""
    if _ABOUT_THE_TEXT.search(question):
        return "about-the-text"
    if f" {_folded(answer)} " in f" {_folded(question)} ":
        return "answer-in-question"
    if not _long_words(question) & _long_words(passage):
        return "not-about-the-passage"
    return ""


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _long_words(text: str) -> frozenset[str]:
    """Words that say something; in scripts without spaces, letters."""
    words = re.findall(r"\w+", text.casefold())
    long = frozenset(word for word in words if len(word) >= _LETTERS_OF_A_WORD and word.isascii())
    return long | frozenset(char for word in words if not word.isascii() for char in word)
