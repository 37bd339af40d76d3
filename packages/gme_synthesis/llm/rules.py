"""The writer without a language model: questions from the structured fields that stand in the passage.

Answers the same requests by the same JSON as a model would, so either can be put in the other's place, and its answers
are gold to score a model against. Knows English frames around a field's name; a corpus may bring better wordings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from gme_synthesis.llm.protocol import Answered, Reply, Request
from gme_synthesis.stages import pick, shuffled
from gme_synthesis.steps.names import replace_names

_FRAMES = (
    "What is the {field} of {title}?",
    "Tell me the {field} of {title}.",
    "For {title}, what is the {field}?",
    "I am looking for the {field} of {title}.",
)
_NO_WORDINGS: Mapping[str, Sequence[str]] = MappingProxyType({})


class RuleWriter:
    """A `LanguageModel` that fills frames. Of the hints it takes all that `Candidate.hints` gives.

    Args:
        seed: Decides which field is asked and by which frame.
        wordings: Frames by field, with ``{title}`` or ``{place}``, for candidates that ask about one fact.
        references: What a name is replaced by, the first of them before "'s"; empty is "this" and the kind of thing.
    """

    def __init__(
        self, seed: int = 0, wordings: Mapping[str, Sequence[str]] = _NO_WORDINGS, references: Sequence[str] = ()
    ) -> None:
        self._seed, self._wordings, self._references = seed, wordings, references
        self._frames = lru_cache(maxsize=1)(self._shuffled)  # the wordings of a fact come one after another

    @property
    def name(self) -> str:
        """See `LanguageModel`."""
        return f"rules-1-{self._seed}"

    @property
    def reads_hints(self) -> bool:
        """See `LanguageModel`."""
        return True

    def complete(self, requests: Iterable[Request], answered: Answered) -> None:
        """See `LanguageModel`."""
        write = {"question": self._question, "entity": self._entity, "caption": _caption, "domain": _domain}
        for number, request in enumerate(requests):
            answer = write[request.prompt.name]({**request.hints, **request.given})
            answered(number, Reply(json.dumps(answer, ensure_ascii=False)))

    def _question(self, given: Mapping[str, Any]) -> dict[str, Any]:
        passage, title = str(given["passage"]), str(given["title"])
        asked = [(field, value) for field, value in sorted(given["facts"].items()) if value and value in passage]
        if not asked or not title:
            return {}
        field, value = asked[int(pick([str(n) for n in range(len(asked))], self._seed, "field", passage))]
        frame = self._frame(field, given)
        question = frame.format(field=field, title=title, place=title)
        return {"answer": value, "question": question} if frame else {}

    def _frame(self, field: str, given: Mapping[str, Any]) -> str:
        """The frame of a question; empty if a fact was asked about in all that there are."""
        if not given["fact"]:
            return pick(_FRAMES, self._seed, "frame", str(given["passage"]))
        frames = self._frames(field, str(given["fact"]))
        return frames[given["wording"]] if given["wording"] < len(frames) else ""

    def _shuffled(self, field: str, fact: str) -> list[str]:
        return shuffled(self._wordings.get(field, _FRAMES), self._seed, "wording", fact)

    def _entity(self, given: Mapping[str, Any]) -> dict[str, Any]:
        names = sorted({str(given["title"]), *given["aliases"]} - {""}, key=lambda name: (-len(name), name))
        if not names:
            return {}
        references = self._references or (f"this {given['kind'] or 'thing'}",)
        reference = pick(references, self._seed, "reference", str(given["fact"]), given["wording"])
        question = replace_names(str(given["question"]), names, reference, before_possessive=references[0])
        return {"entity": str(given["title"]), "question": question}


def _caption(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"caption": f"A picture of {given['entity']}."}


def _domain(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"domain": given["domain"], "confidence": 1.0} if given["domain"] else {}
