"""Step 4, the entity and the question without its name; then the leak check: no name of it may survive.

"Where is Iris pseudacorus native?" -> "Where is this plant native?". Names are what the corpus knows and what the model
found; a part of a name that is a name of its own (the genus, the surname) is a leak as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.answers import EntityAnswer
from gme_synthesis.llm.asking import Asker
from gme_synthesis.llm.prompts import Prompt, load_prompt
from gme_synthesis.llm.protocol import Request
from gme_synthesis.stages import Reject, Stage
from gme_synthesis.steps.names import surviving_name

REFERENCE = re.compile(
    r"\b(?:the \w+ (?:with|in|on) )?(?:this|these|that|those|the (?:pictured|shown|depicted))\s+(\w+)", re.IGNORECASE
)
"""What a rewritten question calls its entity, "this bird" or "the bird in this picture"; the group is the noun."""
_LONG_PART = 4
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """north south east west saint river lake mount island republic kingdom united states state city bridge castle
        church tower temple museum university park garden street house bird tree fish flower plant common great little
        large small black white green blue yellow king queen people""",
    )
)
"""Parts of names that tell nothing."""


class EntityStep:
    """Finds the entity and rewrites the question."""

    def __init__(self, asker: Asker, prompt: Prompt | None = None) -> None:
        self._asker, self._prompt = asker, prompt or load_prompt("entity")

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("entity", ("question",), ("entity", "fused"), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `question`. Output columns: `entity`, `fused`."""
        requests = [Request(self._prompt, {"question": one.question}, one.hints) for one in candidates]
        for candidate, answer in zip(candidates, self._asker.ask(requests), strict=True):
            if not isinstance(answer, EntityAnswer):
                yield Reject("entity", str(answer), candidate.subject, candidate.question)
            elif not surviving_name(_unaccented(candidate.question), [_unaccented(answer.entity)], plural=True):
                said = f"{answer.entity}: {candidate.question}"
                yield Reject("entity", "entity-not-in-question", candidate.subject, said)
            else:
                yield replace(candidate, entity=answer.entity, fused=answer.question)


class LeakCheck:
    """Refuses rewrites that still say what they are about, or that changed into something else."""

    def stage(self) -> Stage:
        """As a step of a chain."""
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
    """A name, or a telling part of one, that stands in `text`; what it is called instead ("this river") is none."""
    text, names = _unaccented(text), [_unaccented(name) for name in names]
    whole = surviving_name(text, names, plural=True)
    if whole:
        return whole
    untold = _COMMON | _words(kind) | {word.casefold() for word in REFERENCE.findall(text)}
    words = [re.findall(r"\w+", name) for name in names]
    parts = {part for several in words if len(several) > 1 for part in several}
    telling = sorted(part for part in parts if len(part) >= _LONG_PART and part.casefold() not in untold)
    return surviving_name(text, telling, plural=True)


def _same_question(question: str, fused: str, names: Sequence[str]) -> bool:
    """Whether most of what is left without the names is in both."""
    named = {word for name in names for word in _words(name)}
    before, after = _words(question) - named, _words(REFERENCE.sub("", fused))
    return bool(before) and len(before & after) * 2 >= max(len(before), len(after))


@lru_cache(maxsize=4096)
def _unaccented(text: str) -> str:
    # "Córdoba" is written in two ways by Unicode alone, and in a third by whoever leaves the accent out.
    parts = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", "".join(char for char in parts if not unicodedata.combining(char)))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold())) - {"the", "a", "an"}
