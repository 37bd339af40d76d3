"""What a cell of a user's table means: as a text, an id, a list or a set of facts.

Table formats hand over whatever their writers had: numbers, lists, objects, bytes, NaN for nothing. Each function here
turns a cell into one kind of value, or raises `CellError`; none takes Python's `str()` of a value it does not know,
which would put ``['a', 'b']``, ``None`` or ``1.0`` into passages and ids. Knows values; neither files nor columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

from gme_data.structured import StructureError, parse_json

_MAX_EXACT_INTEGER = 2**53
"""Integers up to this one are exact in float64; of a larger id that was stored as a float, digits are lost."""
_SEPARATORS = re.compile(r"[|;]")


class CellError(ValueError):
    """A cell does not hold what its column is for.

    Attributes:
        reason: For counting, such as ``not-a-text``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_missing(value: object) -> bool:
    """Tells whether a cell holds nothing: null, or the NaN that data frames write for it."""
    if value is None:
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def text_cell(value: object) -> str:
    """Returns a cell as a text; nothing is the empty text.

    Numbers and dates are written out. A list of texts, as sentence splitters leave it, is joined by spaces.

    Raises:
        CellError: ``not-a-text`` for an object, a truth value, or a list of anything else; ``bad-unicode`` for a text
            that UTF-8 can't hold.
    """
    if isinstance(value, str):  # first, since nearly all cells are texts
        return _encodable(value)
    if value is None or is_missing(value):
        return ""
    if isinstance(value, list | tuple | np.ndarray):
        if all(isinstance(member, str) for member in value):
            return _encodable(" ".join(value))
        raise CellError("not-a-text", f"expected a text, found {_describe(value)}")
    text = _scalar_text(value)
    if text is None or isinstance(value, bool | np.bool_):
        raise CellError("not-a-text", f"expected a text, found {_describe(value)}")
    return text


def id_cell(value: object) -> str:
    """Returns a cell as an id: a text as it is, a whole number as its digits, also if a data frame made a float of it.

    Raises:
        CellError: ``no-id`` for nothing or an empty text; ``bad-id`` for a list, an object, a truth value, a number
            with a fraction, or one too large to be exact as a float; ``bad-unicode``.
    """
    if isinstance(value, str):
        if not value.strip():
            raise CellError("no-id", "expected an id, found an empty text")
        return _encodable(value)
    if is_missing(value):
        raise CellError("no-id", "expected an id, found nothing")
    # A data frame makes floats of a column of integers that has a gap: 12.0 is the id 12.
    if isinstance(value, float | np.floating):
        number = float(value)
        if not number.is_integer() or abs(number) > _MAX_EXACT_INTEGER:
            raise CellError("bad-id", f"expected a text or a whole number as id, found {number!r}")
        return str(int(number))
    text = None if isinstance(value, bool | np.bool_) else _scalar_text(value)
    if not text:
        raise CellError("bad-id", f"expected a text or a whole number as id, found {_describe(value)}")
    return text


def list_cell(value: object) -> list[str]:
    """Returns a cell as texts: a list, or a text with ``|`` or ``;`` between its parts; empty parts are left out.

    Raises:
        CellError: ``not-a-list`` for anything else; ``not-a-text`` or ``bad-unicode`` for a member that is no text.
    """
    if is_missing(value):
        return []
    if isinstance(value, str):
        members: list[Any] = _SEPARATORS.split(value)
    elif isinstance(value, list | tuple | np.ndarray):
        members = list(value)
    else:
        members = [value]
    if any(isinstance(member, list | tuple | np.ndarray | dict | bool) for member in members):
        raise CellError("not-a-list", f"expected a list of texts, found {_describe(value)}")
    return [text for member in members if (text := text_cell(member).strip())]


def facts_cell(value: object) -> dict[str, str]:
    """Returns a cell as facts by field: an object, pairs, or the JSON of an object; fields without value are left out.

    Truth values are written as in JSON, lists of scalars with ``, `` between their members.

    Raises:
        CellError: ``bad-facts`` for anything else, such as objects inside objects.
    """
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return {}
    try:
        loaded = parse_json(value, object, where="the cell") if isinstance(value, str) else value
    except StructureError as error:
        raise CellError("bad-facts", f"expected a JSON object of field: value: {error.reason}") from error
    if not isinstance(loaded, dict):
        loaded = _as_mapping(loaded)
    return {_fact_text(name): text for name, fact in loaded.items() if (text := _fact_text(fact).strip())}


def picture_cell(value: object) -> str | bytes | None:
    """Returns a cell as a picture: encoded bytes, or the name, path or id of one; None for nothing.

    Takes the ``{bytes, path}`` objects in which Hugging Face datasets keep pictures; the bytes go before the path.

    Raises:
        CellError: ``not-a-picture`` for anything else; ``bad-unicode``.
    """
    if isinstance(
        value, str
    ):  # first, since nearly all are: an isinstance of the abstract Mapping takes ten times as long
        return _encodable(value) or None
    if value is None:
        return None
    if isinstance(value, Mapping) and set(value) <= {"bytes", "path"}:
        value = value.get("bytes") if not is_missing(value.get("bytes")) else value.get("path")
    if is_missing(value) or value in ("", b""):
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return _encodable(value)
    raise CellError("not-a-picture", f"expected a picture's bytes, path or id, found {_describe(value)}")


def _encodable(text: str) -> str:
    """Returns the text itself, if UTF-8 can hold it: JSON and truncating exporters write halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CellError(
            "bad-unicode", f"a lone surrogate (half of a character) at position {error.start} of the text"
        ) from error
    return text


def _scalar_text(value: Any) -> str | None:  # noqa: ANN401 - what a cell holds
    """Returns a scalar as text; None for what is no scalar, or has no single spelling."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    return next((write(value) for kind, write in _WRITERS.items() if isinstance(value, kind)), None)


def _float_text(value: float) -> str | None:
    """Returns whole numbers without ``.0``, since data frames make floats of a column of integers that has a gap."""
    if not math.isfinite(value):
        return None
    return str(int(value)) if value.is_integer() and abs(value) <= _MAX_EXACT_INTEGER else repr(value)


def _decoded(value: bytes | bytearray) -> str | None:
    """Decodes the texts of Parquet files whose writer did not mark them as text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


_WRITERS: dict[type, Callable[[Any], str | None]] = {
    str: _encodable,
    bool: lambda value: "true" if value else "false",  # before int, of which it is a subclass
    int: str,
    float: _float_text,
    Decimal: lambda value: format(value, "f") if value.is_finite() else None,
    date: lambda value: value.isoformat(),  # a datetime with its time
    time: time.isoformat,
    UUID: str,
    bytes: _decoded,
    bytearray: _decoded,
}


def _as_mapping(value: object) -> Mapping[object, object]:
    """Returns a mapping of another class, or pairs, as Parquet's maps are read."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple):
        pairs = [pair for pair in value if isinstance(pair, list | tuple) and len(pair) == 2]
        if len(pairs) == len(value):
            return {_fact_text(name): fact for name, fact in pairs}
    raise CellError("bad-facts", f"expected an object of field: value, found {_describe(value)}")


def _fact_text(value: object) -> str:
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if is_missing(value):
        return ""
    members = value if isinstance(value, list | tuple | np.ndarray) else [value]
    texts = [_scalar_text(member) for member in members if not is_missing(member)]
    if any(text is None for text in texts):
        raise CellError("bad-facts", f"expected a text or a number as a fact's value, found {_describe(value)}")
    return ", ".join(text for text in texts if text)


def _describe(value: object) -> str:
    """Returns the type of a value in terms of JSON, with the beginning of the value."""
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(ascii, list(value)[:4]))}"
    if isinstance(value, bool | np.bool_):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes that are no UTF-8"
    if isinstance(value, list | tuple | np.ndarray):
        kinds = sorted({type(member).__name__ for member in list(value)[:100]})
        return f"a list of {len(value)} ({', '.join(kinds) or 'empty'})"
    return f"{type(value).__name__} {ascii(value)[:40]}"
