"""Prompt files: a version, instructions, names of inputs, one or two worked examples. Their digest is in every key.

A prompt renders in two ways: as chat messages with JSON answers, and as plain text to be completed line by line, for
small models that don't follow instructions. Documents are data: they stand between delimiters and are never formatted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from gme_data.digests import sha256_json
from gme_data.settings import Frozen, load_config
from gme_synthesis.llm.answers import ANSWERS, Answer

_FOLDER = Path(__file__).parent / "prompts"
_MAX_INPUT_CHARS = 6000
"""Longer inputs are cut, so that no document outgrows the context of a model."""


class Shot(Frozen):
    """A worked example."""

    RENAMED: ClassVar[Mapping[str, str]] = {"given": "inputs"}

    inputs: dict[str, str] = Field(serialization_alias="given")
    """Values of the prompt's `inputs`, by name."""
    answer: dict[str, Any]
    """Valid for the prompt's kind of answer."""


class Prompt(Frozen):
    """One prompt file."""

    RENAMED: ClassVar[Mapping[str, str]] = {"given": "inputs"}

    name: str
    """Names the kind of answer, see `ANSWERS`."""
    version: int = Field(ge=1)
    """Is raised with every change, for people; keys go by the content."""
    system: str
    """The system message: what the model has to do."""
    inputs: tuple[str, ...] = Field(serialization_alias="given")
    """Names of the texts that a request fills in."""
    shots: tuple[Shot, ...] = Field(min_length=1)
    """Worked examples in every request."""
    max_tokens: int = Field(ge=1)
    """Most tokens of an answer."""

    @property
    def kind(self) -> type[Answer]:
        """The class of the answer."""
        return ANSWERS[self.name]

    def __copy__(self) -> Self:
        # `model_copy` copies the instance's dict, and cached properties with it: those of other fields would be wrong.
        copied = super().__copy__()
        for name in ("schema_of_answer", "digest", "_shared"):
            copied.__dict__.pop(name, None)
        return copied

    @cached_property
    def schema_of_answer(self) -> dict[str, Any]:
        """The JSON schema of the answer."""
        return self.kind.model_json_schema()

    @cached_property
    def digest(self) -> str:
        """The digest of all that a request contains but its own inputs."""
        # By alias: journals hold answers under digests of a time when `inputs` was called `given`.
        return sha256_json([self.model_dump(mode="json", by_alias=True), self.schema_of_answer])

    def messages(self, inputs: Mapping[str, str]) -> list[dict[str, str]]:
        """Renders for a chat model: instructions, worked examples as earlier turns, and the inputs."""
        return [*self._shared, {"role": "user", "content": self._delimited(inputs)}]

    @cached_property
    def _shared(self) -> list[dict[str, str]]:
        turns = [{"role": "system", "content": self.system}]
        for shot in self.shots:
            turns.append({"role": "user", "content": self._delimited(shot.inputs)})
            turns.append({"role": "assistant", "content": json.dumps(shot.answer, ensure_ascii=False)})
        return turns

    def completion(self, inputs: Mapping[str, str]) -> str:
        """Renders for a base model: blocks of labelled lines; the last ends at the answer's first label."""
        first, *_ = self.fields
        shots = [_lines([*shot.inputs.items(), *((f, shot.answer[f]) for f in self.fields)]) for shot in self.shots]
        open_block = _lines((name, inputs[name]) for name in self.inputs)
        return "\n\n".join([*shots, f"{open_block}\n{_label(first)}"])

    def parse_completion(self, text: str) -> str:
        """Returns the completed lines as the JSON that a chat model would have answered."""
        # The prompt ended with the first label, so the completion lacks it; an empty line ends the block.
        text = _label(self.fields[0]) + text.partition("\n\n")[0]
        values = {}
        for field in self.fields:
            _, label, value = text.partition(_label(field))
            if label:
                values[field] = value.partition("\n")[0].strip()
        return json.dumps(values, ensure_ascii=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the answer, in the order in which a model should generate them."""
        return tuple(self.kind.model_fields)

    def _delimited(self, inputs: Mapping[str, str]) -> str:
        return "\n".join(f"<{name}>\n{_escaped(inputs[name])}\n</{name}>" for name in self.inputs)


@cache
def load_prompt(name: str) -> Prompt:
    """Reads the prompt file ``prompts/<name>.yaml`` of this package."""
    return load_config(_FOLDER / f"{name}.yaml", Prompt)


def _escaped(value: Any) -> str:  # noqa: ANN401 - text, or what has one
    # A passage with ``</passage>`` in it would end its own delimiters, and what follows would read as instructions.
    return str(value).replace("</", "< /")[:_MAX_INPUT_CHARS]


def _label(name: str) -> str:
    return f"{name.capitalize()}:"


def _lines(pairs: Iterable[tuple[str, Any]]) -> str:
    # Line breaks of a document become spaces: an empty line would look like the end of its block.
    return "\n".join(f"{_label(name)} {' '.join(_escaped(value).split())}" for name, value in pairs)
