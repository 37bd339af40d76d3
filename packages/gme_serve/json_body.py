"""A body's JSON, bounded before it is parsed: its values are counted in the bytes, at the speed of C.

A parser builds an object of 50 bytes or more for every two bytes of ``{},{},``, and holds Python's lock meanwhile; what
is counted here costs a few passes over the bytes, whatever they are. Knows JSON; fields are `bodies`'.
"""

from __future__ import annotations

import email.message
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from gme_data.structured import StructureError, load_json
from gme_serve.config import Limits
from gme_serve.errors import JSON_HINT, ApiError, invalid

_MARK = b"\xef\xbb\xbf"
"""Some programs begin UTF-8 with it; it says nothing."""
_LONGEST_NAME = 256
"""Bytes of a field's name: four times what is compared and repeated of it."""
_SHORT = 4096
"""Bytes of a body that can't hold enough of anything to be worth counting."""
_Model = TypeVar("_Model", bound=BaseModel)


def is_json(content_type: str) -> bool:
    """Whether a Content-Type is that of JSON; any other can be sent by any web page without asking."""
    message = email.message.Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def parse_body(raw: bytes, kind: type[_Model], limits: Limits) -> _Model:
    """The bytes of a body as `kind`. Slow for large ones: to be called beside the event loop.

    Raises:
        ApiError: 400; more values than allowed, no strict JSON (see `structured`), or not what `kind` takes.
    """
    raw = raw.removeprefix(_MARK)
    if len(raw) > _SHORT:
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

    Of a text that is no JSON too little may be counted, but not of the part of it before its first mistake, which is
    as far as a parser gets.

    Raises:
        ApiError: 400; more than `max_values` objects, lists and members, or a name of more than 256 bytes.
    """
    # Without escapes every quote opens or closes a text.
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    pieces = raw.split(b'"', 4 * max_values)  # a member has a name and a value, of two quotes each
    between = b"".join(pieces[::2])
    count = sum(map(between.count, (b",", b"[", b"{")))
    if count > max_values or len(pieces) > 4 * max_values:
        message = (
            f"The body has more than {max_values} values: objects, lists and their members. Send several requests."
        )
        raise ApiError(400, message, code="too_many_values")
    for number in range(1, len(pieces) - 1, 2):
        if len(pieces[number]) > _LONGEST_NAME and pieces[number + 1].lstrip().startswith(b":"):
            message = f"A field's name of {len(pieces[number])} bytes; it may have {_LONGEST_NAME}."
            raise ApiError(400, message, code="name_too_long")
