"""Parses JSON bodies, whose values are counted in the bytes before, at the speed of C.

A parser builds an object of 50 bytes or more for every two bytes of ``{},{},`` and holds the interpreter's lock
meanwhile; the count takes a few passes over the bytes, whatever they are. Knows JSON; `bodies` knows fields.
"""

from __future__ import annotations

import email.message
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from gme_data.structured import StructureError, load_json
from gme_serve.config import RequestLimits
from gme_serve.errors import JSON_HINT, ApiError, invalid

_BOM = b"\xef\xbb\xbf"
"""The byte order mark, which some programs put before UTF-8 and which is ignored."""
_MAX_NAME_BYTES = 256
"""Bytes of a field's name, at most; `bodies` compares 64 characters of it, each of up to four bytes."""
_UNCOUNTED_BYTES = 4096
"""Bodies of up to this size are not counted, since they can't hold many values."""
_Model = TypeVar("_Model", bound=BaseModel)


def is_json(content_type: str) -> bool:
    """Whether a Content-Type is that of JSON."""
    # Browsers let any page send some other types to any server, without asking it by a preflight request.
    message = email.message.Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def parse_body(raw: bytes, kind: type[_Model], limits: RequestLimits) -> _Model:
    """Parse the bytes of a body as `kind`. Large bodies take long, so this must not run on the event loop.

    Raises:
        ApiError: 400; the body has too many values, is no strict JSON (see `structured`), or is not valid as `kind`.
    """
    raw = raw.removeprefix(_BOM)
    if len(raw) > _UNCOUNTED_BYTES:
        check_shape(raw, limits.max_values)
    try:
        value = load_json(raw, where="The body", max_bytes=len(raw))
    except StructureError as error:
        raise ApiError(400, f"The body can't be read: {error.reason}. {JSON_HINT}", code="json_invalid") from error
    try:
        return kind.model_validate(value, context=limits)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False)) from error


def check_shape(raw: bytes, max_values: int) -> None:
    """Count the values of a JSON text and measure the names of its fields, without parsing it.

    In a text that is no JSON the count may be too low, but never for the part before its first error, which is as far
    as a parser gets.

    Raises:
        ApiError: 400; there are more than `max_values` objects, lists and members, or a name of more than 256 bytes.
    """
    # With escapes replaced, every quote opens or closes a text, so that every other piece lies outside of texts.
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    # A member has a name and a value, of two quotes each, so more pieces mean too many members.
    pieces = raw.split(b'"', 4 * max_values)
    outside_texts = b"".join(pieces[::2])
    count = sum(map(outside_texts.count, (b",", b"[", b"{")))
    if count > max_values or len(pieces) > 4 * max_values:
        message = (
            f"The body has more than {max_values} values: objects, lists and their members. Send several requests."
        )
        raise ApiError(400, message, code="too_many_values")
    for number in range(1, len(pieces) - 1, 2):
        if len(pieces[number]) > _MAX_NAME_BYTES and pieces[number + 1].lstrip().startswith(b":"):
            message = f"A field's name of {len(pieces[number])} bytes; it may have {_MAX_NAME_BYTES}."
            raise ApiError(400, message, code="name_too_long")
