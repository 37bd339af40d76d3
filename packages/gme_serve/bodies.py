"""The bodies of requests: OpenAI's embeddings body with pictures, the uploaded form, and a search.

Knows fields and their shapes. Of a server's limits, which are the context of the validation, only the number of items
is checked here; `prepare` checks the others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from fastapi import UploadFile
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gme_data.errors import did_you_mean
from gme_serve.config import MAX_MEMBERS, RequestLimits

_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w.+=-]+)*;base64,")
_MAX_NAME = 64
"""Characters of a field's name that are compared or repeated; difflib takes seconds for a name of a megabyte."""
_MAX_FIELDS = 64
"""A body may have this many fields; clients add a handful to the known ones."""
_TYPO_SIMILARITY = 0.8
"""An unknown name of this similarity to a known one counts as a typo. `instuction` has 0.95 and `instruct` 0.84, while
`input_type`, which OpenAI's clients send, has only 0.67 to `input`."""


class Body(BaseModel):
    """Base of the bodies that OpenAI's API doesn't have: an unknown field is refused with a suggestion."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, raw: Any) -> Any:  # noqa: ANN401 - whatever a client sends
        unknown = next((name for name in raw if name not in cls.model_fields), None) if _is_object(raw) else None
        if unknown is not None:
            raise _unknown_field(unknown, did_you_mean(unknown[:_MAX_NAME], cls.model_fields), cls.model_fields)
        return raw


def _is_object(raw: Any) -> bool:  # noqa: ANN401 - whatever a client sends
    return isinstance(raw, Mapping)


def _unknown_field(name: str, suggestion: str, known: Mapping[str, Any]) -> PydanticCustomError:
    # The name is escaped, since it may hold any characters.
    field, fields = ascii(name[:_MAX_NAME]), ", ".join(known)
    return PydanticCustomError(
        "unknown_field",
        "Unknown field {field}.{suggestion} Known fields: {fields}.",
        {"field": field, "suggestion": suggestion, "fields": fields},
    )


def _data_uri(value: str) -> str:
    # Only the head is matched, since the picture behind it may have megabytes.
    if not _DATA_URI.match(value[:256]):
        raise PydanticCustomError(
            "image_not_data_uri",
            "Expected a data: URI such as data:image/png;base64,... This server reads no paths and fetches no "
            "addresses: send the picture itself, here or as a file to /v1/embeddings/upload.",
        )
    return value


DataUri = Annotated[str, AfterValidator(_data_uri)]


def _bounded(value: Any) -> Any:  # noqa: ANN401 - whatever a client sends
    if isinstance(value, list) and len(value) > MAX_MEMBERS:
        raise PydanticCustomError(
            "too_many_members",
            "A list of {members} members; a list may have {most}.",
            {"members": len(value), "most": MAX_MEMBERS},
        )
    return value


TokenIds = Annotated[
    list[Annotated[int, Field(strict=True, ge=0, lt=2**31)]], Field(fail_fast=True), BeforeValidator(_bounded)
]


class ItemBody(Body):
    """An item: a text, a picture, or both."""

    text: str | None = None
    """The text."""
    token_ids: TokenIds | None = None
    """The text as ids of the request's `tokenizer`."""
    title: str | None = None
    """Title, which is put before the text."""
    image: DataUri | None = None
    """The picture as a data: URI in base64."""

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_text(cls, raw: Any) -> Any:  # noqa: ANN401 - whatever a client sends
        """Make an item of a text alone, or of a list of token ids."""
        if isinstance(raw, str):
            return {"text": raw}
        if isinstance(raw, list):
            return {"token_ids": raw}
        if not _is_object(raw):
            raise PydanticCustomError(
                "item_type",
                "Expected a text or an object with text, title and/or image, found {kind}.",
                {"kind": "null" if raw is None else "a boolean" if isinstance(raw, bool) else "a number"},
            )
        return raw

    @model_validator(mode="after")
    def _require_content(self) -> Self:
        if self.text is not None and self.token_ids is not None:
            raise PydanticCustomError("text_twice", "Give `text` or `token_ids`, not both.")
        if self.text or self.token_ids or self.title or self.image is not None:
            return self
        if self.text is None and self.token_ids is None and self.title is None:
            raise PydanticCustomError("empty_item", "An item needs a text, an image, or both.")
        raise PydanticCustomError(
            "empty_text", "input cannot be an empty string: it says nothing that could be embedded. Leave it out."
        )


def _as_list(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever a client sends
    """Make a list of one item of a text alone, or of the token ids of one text."""
    # Items are counted before any is validated, which costs much more than parsing them.
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("input_type", "Expected a text, or a list of texts and objects.")
    if not value:
        raise PydanticCustomError("empty_input", "Expected at least one item; input cannot be an empty list.")
    if type(value[0]) is int:
        return [value]
    most = info.context.max_items if isinstance(info.context, RequestLimits) else MAX_MEMBERS
    if len(value) > most:
        raise PydanticCustomError(
            "too_many_items",
            "{items} items in one request; this server takes {most}. Send several requests.",
            {"items": len(value), "most": most},
        )
    return value


InputList = Annotated[
    list[ItemBody],
    Field(fail_fast=True),
    BeforeValidator(_as_list, json_schema_input_type=str | list[int] | list[str | list[int] | ItemBody]),
]


class EmbeddingsBody(BaseModel):
    """OpenAI's embeddings request, extended by `instruction`, `tokenizer` and pictures.

    Unknown fields are ignored, since clients of OpenAI's API add their own; `ignored` names them. A typo in the name of
    a field that the vectors depend on is refused: it would silently give a wrong vector.
    """

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)
    _ignored: list[str] = PrivateAttr(default_factory=list)

    model: str | None = None
    """Name of the served model; optional."""
    tokenizer: str | None = None
    """Tokenizer of the token ids in `input`, by the served model's name. Without it they are refused."""
    input: InputList
    """A text, or a list of texts and items."""
    instruction: str | None = None
    """Instruction of queries: the task in a sentence. Documents have none."""
    encoding_format: Literal["float", "base64"] | None = None
    """`float` by default, or `base64` for the vector's float32 values in little endian."""
    dimensions: Annotated[int, Field(strict=True)] | None = None
    """Dimension of the vectors; refused unless it is that of the model."""
    user: str | None = None
    """Ignored."""

    @property
    def ignored(self) -> list[str]:
        """Names of the unknown fields, at most 64 characters of each."""
        return self._ignored

    @model_validator(mode="wrap")
    @classmethod
    def _note_ignored(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 - as sent
        fields = raw if _is_object(raw) else {}
        if len(fields) > _MAX_FIELDS:
            raise PydanticCustomError(
                "too_many_fields",
                "{fields} fields; a body may have {most}.",
                {"fields": len(fields), "most": _MAX_FIELDS},
            )
        unknown = [name for name in fields if name not in cls.model_fields]
        deciding = [name for name in cls.model_fields if name not in ("model", "user")]
        for name in unknown:
            near = difflib.get_close_matches(name[:_MAX_NAME].lower(), deciding, n=1, cutoff=_TYPO_SIMILARITY)
            if near:
                raise _unknown_field(name, f" Did you mean '{near[0]}'?", cls.model_fields)
        body = handler(raw)
        body._ignored = [name[:_MAX_NAME] for name in unknown]
        return body

    @field_validator("input")
    @classmethod
    def _require_tokenizer_of_ids(cls, items: list[ItemBody], info: ValidationInfo) -> list[ItemBody]:
        """Refuse token ids of an unnamed tokenizer: with that of another model they would be other words."""
        if info.data.get("tokenizer") is None and any(item.token_ids is not None for item in items):
            raise PydanticCustomError(
                "token_ids",
                "Token ids are taken only with `tokenizer`, the served model's name, since each model has its own. "
                "Send texts: LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False.",
            )
        return items


def _file(value: Any) -> Any:  # noqa: ANN401 - whatever a client sends
    if isinstance(value, bytes):
        raise PydanticCustomError("no_file", "Expected a file, found a text. With curl: -F image=@picture.png")
    return value


def _utf8(value: Any) -> Any:  # noqa: ANN401 - whatever a client sends
    """Decode the text of a form's field, which arrives as bytes."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise PydanticCustomError(
            "not_utf8",
            "Not UTF-8, the encoding of forms: {reason} at byte {start}.",
            {"reason": error.reason, "start": error.start},
        ) from error


FormText = Annotated[str, BeforeValidator(_utf8)]


class UploadBody(Body):
    """The form of an uploaded picture."""

    image: Annotated[UploadFile, BeforeValidator(_file)]
    """The picture file."""
    text: FormText | None = None
    """A text that belongs to the picture."""
    instruction: FormText | None = None
    """Instruction of queries: the task in a sentence."""
    model: FormText | None = None
    """Name of the served model; optional."""


class SearchBody(Body):
    """A query: a text, a picture, or both."""

    text: str | None = None
    """Text of the query."""
    image: DataUri | None = None
    """The picture as a data: URI in base64."""
    instruction: str | None = None
    """The task in a sentence."""
    k: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Number of hits; by default 24, or the server's limit if that is lower."""

    @model_validator(mode="after")
    def _require_content(self) -> Self:
        if not (self.text or "").strip() and self.image is None:
            raise PydanticCustomError("empty_query", "Nothing to search for: give text, image, or both.")
        return self
