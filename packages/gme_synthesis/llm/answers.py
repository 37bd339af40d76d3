"""What a language model must return: one pydantic model per prompt, whose JSON schema constrains the decoding.

Knows shapes and lengths; whether an answer is any good is for the filters to say.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from gme_data.settings import Frozen
from gme_data.structured import StructureError, parse_json
from gme_synthesis.text.characters import readable
from gme_synthesis.text.markup import mentions_markup

Domain = Literal[
    "animal", "plant", "architecture", "artwork", "currency", "entertainment", "event", "food",
    "language", "literature", "mythology", "organization", "person", "place", "vehicle",
]  # fmt: skip
"""The 15 coarse classes of passages. The paper names twelve of them; `event`, `place` and `vehicle` are ours."""

_REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|unable)|I (?:can(?:no|')t|won't)|as an AI\b|cannot (?:comply|assist))", re.IGNORECASE
)


# The class names and docstrings below are part of the JSON schemas: models are sent them, and the digest of a prompt,
# by which paid answers are found in journals, covers them. A new wording means that every answer is paid for anew.
class Answer(Frozen, extra="ignore"):
    """Base of all answers: fields beyond the schema are dropped, runs of white space become one space.

    Texts are as a reader sees them, as those of passages are: what is invisible would hide from every check.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _normalise(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        return " ".join(readable(value).split()) if isinstance(value, str) else value


class QuestionAnswer(Answer):
    """A question that the passage answers."""

    question: str = Field(min_length=8, max_length=300)
    """Names the passage's subject, so that it can be asked without the passage."""
    answer: str = Field(min_length=1, max_length=300)
    """The answer, in words of the passage."""


class EntityAnswer(Answer):
    """What a question is about, and the question without its name."""

    entity: str = Field(min_length=1, max_length=120)
    """The main entity as the question names it."""
    question: str = Field(min_length=8, max_length=300)
    """The question with the name replaced by a phrase such as "this plant"."""


class CaptionAnswer(Answer):
    """What a picture of the entity shows."""

    caption: str = Field(min_length=8, max_length=400)
    """Something that can be drawn."""


class DomainAnswer(Answer):
    """The class of a passage."""

    domain: Domain
    """One of the 15 classes."""
    confidence: float = Field(ge=0, le=1)
    """How sure the model is."""


ANSWERS: dict[str, type[Answer]] = {
    "question": QuestionAnswer,
    "entity": EntityAnswer,
    "caption": CaptionAnswer,
    "domain": DomainAnswer,
}


def parse_answer(text: str, kind: type[Answer]) -> Answer | str:
    """Returns the first JSON object in `text` as an answer of its kind, or the reason why there is none.

    Reasons are ``empty-answer``, ``refusal``, ``invalid-json``, ``wrong-fields``, ``control-characters``, ``markup``.
    """
    # Many models put JSON between prose or code fences, whatever the prompt says, so the first brace counts.
    start = text.find("{")
    if start < 0:
        if not text.strip():
            return "empty-answer"
        return "refusal" if _REFUSAL.search(text) else "invalid-json"
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
        value = parse_json(text[start:end], dict[str, Any], where="answer")
    except (ValueError, RecursionError, StructureError):
        return "invalid-json"
    try:
        answer = kind.model_validate(value)
    except ValidationError:
        return "wrong-fields"
    # The texts as the model wrote them, since `Answer` has replaced the control characters that are looked for.
    texts = [value[name] for name in kind.model_fields if isinstance(value[name], str)]
    if any(unicodedata.category(letter) == "Cc" and letter not in "\t\n\r" for text in texts for letter in text):
        return "control-characters"
    return "markup" if any(map(mentions_markup, texts)) else answer
