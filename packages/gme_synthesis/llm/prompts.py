"""Prompts are files: a version, instructions, what is given, one or two worked examples. Their digest is in every key.

A prompt renders in two ways: as chat messages with JSON answers, and as plain text to be completed line by line, for
small models that don't follow instructions. Documents are data: they stand between delimiters and are never formatted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from gme_data.digests import sha256_json
from gme_data.settings import Frozen, load_config
from gme_synthesis.llm.answers import ANSWERS, Answer

_FOLDER = Path(__file__).parent / "prompts"
_LONGEST_GIVEN = 6000


class Shot(Frozen):
    """A worked example."""

    given: dict[str, str]
    """Values of the prompt's `given`."""
    answer: dict[str, Any]
    """Valid for the prompt's kind of answer."""


class Prompt(Frozen):
    """One prompt file."""

    name: str
    """Names the kind of answer, see `ANSWERS`."""
    version: int = Field(ge=1)
    """Raised with every change, for people; keys go by the content."""
    system: str
    """What the model is told to do."""
    given: tuple[str, ...]
    """Names of what a request brings."""
    shots: tuple[Shot, ...] = Field(min_length=1)
    """Shown in every request."""
    max_tokens: int = Field(ge=1)
    """Of an answer."""

    @property
    def kind(self) -> type[Answer]:
        """The shape of the answer."""
        return ANSWERS[self.name]

    def __copy__(self) -> Self:
        # A copy with other fields must not keep what was worked out from these.
        copied = super().__copy__()
        for name in ("schema_of_answer", "digest", "_shared"):
            copied.__dict__.pop(name, None)
        return copied

    @cached_property
    def schema_of_answer(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return self.kind.model_json_schema()

    @cached_property
    def digest(self) -> str:
        """Of all that a request is made of but its own values."""
        return sha256_json([self.model_dump(mode="json"), self.schema_of_answer])

    def messages(self, given: Mapping[str, str]) -> list[dict[str, str]]:
        """For a chat model: instructions, worked examples as earlier turns, and what is given."""
        return [*self._shared, {"role": "user", "content": self._delimited(given)}]

    @cached_property
    def _shared(self) -> list[dict[str, str]]:
        turns = [{"role": "system", "content": self.system}]
        for shot in self.shots:
            turns.append({"role": "user", "content": self._delimited(shot.given)})
            turns.append({"role": "assistant", "content": json.dumps(shot.answer, ensure_ascii=False)})
        return turns

    def completion(self, given: Mapping[str, str]) -> str:
        """For a base model: blocks of labelled lines, the last of which ends at the first label of the answer."""
        first, *_ = self.fields
        blocks = [_lines([*shot.given.items(), *((f, shot.answer[f]) for f in self.fields)]) for shot in self.shots]
        asked = _lines((name, given[name]) for name in self.given)
        return "\n\n".join([*blocks, f"{asked}\n{_label(first)}"])

    def parse_completion(self, text: str) -> str:
        """The completed lines as the JSON that a chat model would have answered."""
        text = _label(self.fields[0]) + text.partition("\n\n")[0]
        values = {}
        for field in self.fields:
            _, found, rest = text.partition(_label(field))
            if found:
                values[field] = rest.partition("\n")[0].strip()
        return json.dumps(values, ensure_ascii=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the answer, in the order in which they are best thought of."""
        return tuple(self.kind.model_fields)

    def _delimited(self, given: Mapping[str, str]) -> str:
        return "\n".join(f"<{name}>\n{_cut(given[name])}\n</{name}>" for name in self.given)


@cache
def load_prompt(name: str) -> Prompt:
    """The prompt file ``prompts/<name>.yaml`` of this package."""
    path = _FOLDER / f"{name}.yaml"
    return load_config(path, Prompt)


def _cut(value: Any) -> str:  # noqa: ANN401 - text, or what has one
    # A document can't close its own delimiter.
    return str(value).replace("</", "< /")[:_LONGEST_GIVEN]


def _label(name: str) -> str:
    return f"{name.capitalize()}:"


def _lines(pairs: Iterable[tuple[str, Any]]) -> str:
    # One line each, or a document with line breaks would look like another block.
    return "\n".join(f"{_label(name)} {' '.join(_cut(value).split())}" for name, value in pairs)
