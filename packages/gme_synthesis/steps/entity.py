"""Step 4, the entity and the question without its name; then the leak check: no name of the entity may survive.

"Where is Iris pseudacorus native?" -> "Where is this plant native?". Names are those of the corpus and that of the
model's answer; a part of a name that identifies the entity (the genus, the surname) is a leak as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.answers import EntityAnswer
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.prompts import Prompt, load_prompt
from gme_synthesis.llm.protocol import CompletionRequest
from gme_synthesis.stages import Reject, Stage
from gme_synthesis.text.names import surviving_name

REFERENCE = re.compile(
    r"\b(?:the \w+ (?:with|in|on) )?(?:this|these|that|those|the (?:pictured|shown|depicted))\s+(\w+)", re.IGNORECASE
)
"""Matches a reference to the entity, "this bird" or "the bird in this picture"; the group is the noun."""
_MIN_PART_CHARS = 4
"""Shorter parts of names, such as "van" or "of", identify nothing."""
_COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        """north south east west saint river lake mount island republic kingdom united states state city bridge castle
        church tower temple museum university park garden street house bird tree fish flower plant common great little
        large small black white green blue yellow king queen people""",
    )
)
"""Common words in names, which do not identify an entity by themselves."""


class EntityStep:
    """Names the entity of a question and rewrites the question without its name."""

    def __init__(self, client: LLMClient, prompt: Prompt | None = None) -> None:
        self._client, self._prompt = client, prompt or load_prompt("entity")

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("entity", ("question",), ("entity", "fused"), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `question`. Output columns: `entity`, `fused`."""
        requests = [CompletionRequest(self._prompt, {"question": each.question}, each.hints) for each in candidates]
        for candidate, answer in zip(candidates, self._client.ask(requests), strict=True):
            if not isinstance(answer, EntityAnswer):
                yield Reject("entity", str(answer), candidate.subject, candidate.question)
            elif not surviving_name(_unaccented(candidate.question), [_unaccented(answer.entity)], plural=True):
                text = f"{answer.entity}: {candidate.question}"
                yield Reject("entity", "entity-not-in-question", candidate.subject, text)
            else:
                yield replace(candidate, entity=answer.entity, fused=answer.question)


class LeakCheck:
    """Refuses rewritten questions that still name their entity, or that ask something else."""

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("leak", ("question", "entity", "fused"), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `question`, `entity`, `fused`, `title`, `aliases`. Output columns: none."""
        for candidate in candidates:
            problem = self._problem(candidate)
            if problem:
                yield Reject("leak", problem, candidate.subject, f"{candidate.entity}: {candidate.fused}")
            else:
                yield candidate

    @staticmethod
    def _problem(candidate: Candidate) -> str:
        if candidate.fused == candidate.question:
            return "name-not-replaced"
        if leaked_name(candidate.fused, candidate.names, candidate.kind):
            return "name-survives"
        if not REFERENCE.search(candidate.fused):
            return "no-reference"
        return "" if _same_question(candidate.question, candidate.fused, candidate.names) else "another-question"


def leaked_name(text: str, names: Sequence[str], kind: str = "") -> str | None:
    """Returns a name, or an identifying part of one, that occurs in `text`; None if there is none.

    The noun of a reference ("this river") is no leak, even if names have it ("Yellow River").
    """
    text, names = _unaccented(text), [_unaccented(name) for name in names]
    complete_name = surviving_name(text, names, plural=True)
    if complete_name:
        return complete_name
    allowed = _COMMON_WORDS | _words(kind) | {word.casefold() for word in REFERENCE.findall(text)}
    words_of_names = [re.findall(r"\w+", name) for name in names]
    parts = {part for words in words_of_names if len(words) > 1 for part in words}
    identifying = sorted(part for part in parts if len(part) >= _MIN_PART_CHARS and part.casefold() not in allowed)
    return surviving_name(text, identifying, plural=True)


def _same_question(question: str, fused: str, names: Sequence[str]) -> bool:
    """Says whether at least half of the words, names aside, are in both questions."""
    name_words = {word for name in names for word in _words(name)}
    before, after = _words(question) - name_words, _words(REFERENCE.sub("", fused))
    return bool(before) and len(before & after) * 2 >= max(len(before), len(after))


@lru_cache(maxsize=4096)
def _unaccented(text: str) -> str:
    # Unicode has two spellings of "Córdoba", and many texts a third, without the accent: a model that switches between
    # them must not hide a leak.
    decomposed = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", "".join(char for char in decomposed if not unicodedata.combining(char)))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold())) - {"the", "a", "an"}
