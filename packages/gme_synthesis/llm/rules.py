"""The writer without a language model: questions from the structured fields that stand in the passage.

Answers the same requests by the same JSON as a model would, so either can be put in the other's place, and its answers
are gold to score a model against. Knows English frames around a field's name; nothing of any one corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gme_synthesis.llm.protocol import Answered, Reply, Request
from gme_synthesis.records import pick
from gme_synthesis.rewrite import replace_names

_FRAMES = (
    "What is the {field} of {title}?",
    "Tell me the {field} of {title}.",
    "For {title}, what is the {field}?",
    "I am looking for the {field} of {title}.",
)


class RuleWriter:
    """A `LanguageModel` that fills frames. Of the hints it takes `facts`, `title`, `aliases`, `kind` and `domain`.

    Args:
        seed: Decides which field is asked and by which frame.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

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
        frame = pick(_FRAMES, self._seed, "frame", passage)
        return {"answer": value, "question": frame.format(field=field, title=title)}

    def _entity(self, given: Mapping[str, Any]) -> dict[str, Any]:
        names = sorted({str(given["title"]), *given["aliases"]} - {""}, key=lambda name: (-len(name), name))
        reference = f"this {given['kind'] or 'thing'}"
        if not names:
            return {}
        question = replace_names(str(given["question"]), names, reference, before_possessive=reference)
        return {"entity": str(given["title"]), "question": question}


def _caption(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"caption": f"A picture of {given['entity']}."}


def _domain(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"domain": given["domain"], "confidence": 1.0} if given["domain"] else {}
