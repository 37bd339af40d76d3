"""The writer without a language model: fills question templates with structured fields that occur in the passage.

It answers the same requests with the same JSON as a model would, so either can replace the other, and its answers are
the gold standard that a model is scored against. Knows English templates around a field's name; a corpus may bring
better wordings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.stages import pick, shuffled
from gme_synthesis.text.names import replace_names

_TEMPLATES = (
    "What is the {field} of {title}?",
    "Tell me the {field} of {title}.",
    "For {title}, what is the {field}?",
    "I am looking for the {field} of {title}.",
)
_NO_WORDINGS: Mapping[str, Sequence[str]] = MappingProxyType({})


class RuleWriter:
    """A `LanguageModel` that fills templates. It reads all of `Candidate.hints`.

    Args:
        seed: Decides which field is asked about and in which template.
        wordings: Templates by field, with ``{title}`` or ``{place}``, for candidates that ask about one fact.
        references: What a name is replaced by, the first of them before "'s"; empty is "this" and the kind of thing.
    """

    def __init__(
        self, seed: int = 0, wordings: Mapping[str, Sequence[str]] = _NO_WORDINGS, references: Sequence[str] = ()
    ) -> None:
        self._seed, self._wordings, self._references = seed, wordings, references
        # The wordings of a fact are requested one after another, so the last shuffle alone is worth remembering.
        self._templates = lru_cache(maxsize=1)(self._shuffled)

    @property
    def name(self) -> str:
        """See `LanguageModel`."""
        return f"rules-1-{self._seed}"

    @property
    def reads_hints(self) -> bool:
        """See `LanguageModel`."""
        return True

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        """See `LanguageModel`."""
        write = {"question": self._question, "entity": self._entity, "caption": _caption, "domain": _domain}
        for index, request in enumerate(requests):
            answer = write[request.prompt.name]({**request.hints, **request.inputs})
            on_completion(index, Completion(json.dumps(answer, ensure_ascii=False)))

    def _question(self, values: Mapping[str, Any]) -> dict[str, Any]:
        passage, title = str(values["passage"]), str(values["title"])
        # Only facts whose value the passage states: the answer must be in the passage.
        stated = [(field, value) for field, value in sorted(values["facts"].items()) if value and value in passage]
        if not stated or not title:
            return {}
        field, value = stated[int(pick([str(n) for n in range(len(stated))], self._seed, "field", passage))]
        template = self._template(field, values)
        question = template.format(field=field, title=title, place=title)
        return {"answer": value, "question": question} if template else {}

    def _template(self, field: str, values: Mapping[str, Any]) -> str:
        """Returns the template of a question; empty if the fact has fewer templates than wordings are requested."""
        if not values["fact"]:
            return pick(_TEMPLATES, self._seed, "frame", str(values["passage"]))
        templates = self._templates(field, str(values["fact"]))
        return templates[values["wording"]] if values["wording"] < len(templates) else ""

    def _shuffled(self, field: str, fact: str) -> list[str]:
        return shuffled(self._wordings.get(field, _TEMPLATES), self._seed, "wording", fact)

    def _entity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        # Longest first, or an alias that is part of the title would be replaced inside of it.
        names = sorted({str(values["title"]), *values["aliases"]} - {""}, key=lambda name: (-len(name), name))
        if not names:
            return {}
        references = self._references or (f"this {values['kind'] or 'thing'}",)
        reference = pick(references, self._seed, "reference", str(values["fact"]), values["wording"])
        question = replace_names(str(values["question"]), names, reference, before_possessive=references[0])
        return {"entity": str(values["title"]), "question": question}


def _caption(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"caption": f"A picture of {values['entity']}."}


def _domain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"domain": values["domain"], "confidence": 1.0} if values["domain"] else {}
