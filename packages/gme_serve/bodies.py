"""What clients send: OpenAI's embeddings body with pictures, the uploaded form, a search.

Knows fields and their shapes, for all servers alike; limits and models are checked later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from fastapi import UploadFile
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from gme_data.errors import did_you_mean

_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w.+=-]+)*;base64,")


class Body(BaseModel):
    """Base of every body: a field that is not known is refused with a suggestion."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, raw: Any) -> Any:  # noqa: ANN401 - whatever a client sends
        for name in raw if isinstance(raw, Mapping) else ():
            if name not in cls.model_fields:
                near, known = did_you_mean(name, cls.model_fields), ", ".join(cls.model_fields)
                # Escaped: a lone surrogate in a name can't be carried by the error.
                raise PydanticCustomError(
                    "unknown_field",
                    "Unknown field {field}.{near} Known fields: {known}.",
                    {"field": ascii(name), "near": near, "known": known},
                )
        return raw


def _data_uri(value: str) -> str:
    if not _DATA_URI.match(value[:256]):
        raise PydanticCustomError(
            "image_not_data_uri",
            "Expected a data: URI such as data:image/png;base64,... This server reads no paths and fetches no "
            "addresses: send the picture itself, here or as a file to /v1/embeddings/upload.",
        )
    return value


DataUri = Annotated[str, AfterValidator(_data_uri)]


class ItemBody(Body):
    """An item: a text, a picture, or both."""

    text: str | None = None
    """The text."""
    title: str | None = None
    """Goes before the text."""
    image: DataUri | None = None
    """The picture as a data: URI in base64."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.text is None and self.title is None and self.image is None:
            raise PydanticCustomError("empty_item", "An item needs a text, an image, or both.")
        return self


def _as_list(value: Any) -> Any:  # noqa: ANN401 - whatever a client sends
    """A text alone is a list of one. Each member is a text or an object; OpenAI's token ids are neither."""
    members = [value] if isinstance(value, str) else value
    if not isinstance(members, list):
        raise PydanticCustomError("input_type", "Expected a text, or a list of texts and objects.")
    if not members:
        raise PydanticCustomError("empty_input", "Expected at least one item.")
    if any(isinstance(member, int | list) for member in members):
        raise PydanticCustomError("token_ids", "Token ids are not taken, each model has its own: send texts.")
    return [{"text": member} if isinstance(member, str) else member for member in members]


InputList = Annotated[list[ItemBody], BeforeValidator(_as_list, json_schema_input_type=str | list[str | ItemBody])]


class EmbeddingsBody(Body):
    """OpenAI's embeddings request; `instruction` and pictures are ours."""

    input: InputList
    """A text, or a list of texts and items."""
    model: str | None = None
    """The served model's name, if given."""
    instruction: str | None = None
    """For queries: the task in a sentence. Documents have none."""
    encoding_format: Literal["float", "base64"] = "float"
    """`base64`: the vector's float32 values, little endian."""
    dimensions: Annotated[int, Field(strict=True)] | None = None
    """Refused unless it is the size that the model was trained for."""
    user: str | None = None
    """Ignored."""


def _file(value: Any) -> Any:  # noqa: ANN401 - whatever a client sends
    if isinstance(value, str):
        raise PydanticCustomError("no_file", "Expected a file, found a text. With curl: -F image=@picture.png")
    return value


class UploadBody(Body):
    """The form of an uploaded picture."""

    image: Annotated[UploadFile, BeforeValidator(_file)]
    """The picture file."""
    text: str | None = None
    """A text that belongs to the picture."""
    instruction: str | None = None
    """For queries: the task in a sentence."""
    model: str | None = None
    """The served model's name, if given."""


class SearchBody(Body):
    """A query: a text, a picture, or both."""

    text: str | None = None
    """The words."""
    image: DataUri | None = None
    """The picture as a data: URI in base64."""
    instruction: str | None = None
    """The task in a sentence."""
    k: Annotated[int, Field(ge=1, strict=True)] | None = None
    """How many hits; 24 if left out, or as many as the server gives."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not (self.text or "").strip() and self.image is None:
            raise PydanticCustomError("empty_query", "Nothing to search for: give text, image, or both.")
        return self
