"""A cell is what its column is for, or an error; Python's `str()` of a stranger's value is neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gme_data.cells import CellError, facts_cell, id_cell, is_missing, list_cell, picture_cell, text_cell

NAN = float("nan")
NO_TEXTS = [{"en": "A text."}, True, False, [1, 2], [["a"]], [None, "a"], b"\xff\xfe", float("inf"), len, {1, 2}]


@pytest.mark.parametrize("value", [None, NAN, np.float32("nan"), np.float64("nan")])
def test_nothing_is_nothing_in_every_column(value: object) -> None:
    assert is_missing(value)
    assert text_cell(value) == ""
    assert list_cell(value) == []
    assert facts_cell(value) == {}
    assert picture_cell(value) is None
    with pytest.raises(CellError, match="found nothing") as raised:
        id_cell(value)
    assert raised.value.reason == "no-id"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  as it is \n", "  as it is \n"),
        (7, "7"),
        (0, "0"),
        (7.0, "7"),
        (7.5, "7.5"),
        (np.int64(7), "7"),
        (np.float64(7), "7"),
        (Decimal("7.50"), "7.50"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),  # noqa: DTZ001 - as tables have them
        (["The first sentence.", "The second."], "The first sentence. The second."),
        (("a", "b"), "a b"),
        (np.array(["a", "b"]), "a b"),
        ("Zürich".encode(), "Zürich"),
    ],
)
def test_texts(value: object, text: str) -> None:
    assert text_cell(value) == text


@pytest.mark.parametrize("value", NO_TEXTS, ids=lambda value: f"{type(value).__name__}")
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(CellError) as raised:
        text_cell(value)
    assert raised.value.reason == "not-a-text"


@pytest.mark.parametrize(
    ("value", "id_"),
    [("a/b?c " * 99, "a/b?c " * 99), (0, "0"), (1.0, "1"), (np.int32(3), "3"), (2**70, str(2**70))],
    ids=["long", "0", "1.0", "int32", "large"],
)
def test_ids_are_whole(value: object, id_: str) -> None:
    assert id_cell(value) == id_


@pytest.mark.parametrize("value", [1.5, 2.0**60, True, ["a"], {"a": 1}, b"\xff", float("inf")], ids=repr)
def test_what_is_no_id_is_refused(value: object) -> None:
    with pytest.raises(CellError) as raised:
        id_cell(value)
    assert raised.value.reason == "bad-id"


@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_empty_id_is_none(value: object) -> None:
    with pytest.raises(CellError) as raised:
        id_cell(value)
    assert raised.value.reason == "no-id"


@pytest.mark.parametrize("cell", [text_cell, id_cell, list_cell, picture_cell, lambda text: facts_cell({"a": text})])
@pytest.mark.parametrize("value", ["\ud83d", "cut \udc00 off"])
def test_half_a_character_is_refused_wherever_it_stands(cell: Callable[[object], Any], value: str) -> None:
    with pytest.raises(CellError) as raised:
        cell(value)
    assert raised.value.reason == "bad-unicode"


@pytest.mark.parametrize(
    ("value", "parts"),
    [("a|b; c", ["a", "b", "c"]), (["a", " ", None, 3], ["a", "3"]), ([], []), (np.array(["a"]), ["a"]), (7, ["7"])],
)
def test_lists(value: object, parts: list[str]) -> None:
    assert list_cell(value) == parts


@pytest.mark.parametrize("value", [{"a": 1}, [["a"]], [{"a": 1}], [True]], ids=repr)
def test_what_is_no_list_is_refused(value: object) -> None:
    with pytest.raises(CellError):
        list_cell(value)


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        ({"a": "b", "n": 3, "f": 3.0, "no": None, "nan": NAN, "empty": " "}, {"a": "b", "n": "3", "f": "3"}),
        ('{"a": [1, "two"]}', {"a": "1, two"}),
        ([("a", "b")], {"a": "b"}),
        ({"a": True}, {"a": "true"}),
        (" ", {}),
    ],
)
def test_facts(value: object, facts: dict[str, str]) -> None:
    assert facts_cell(value) == facts


@pytest.mark.parametrize(
    "value",
    ["{broken", "3", "[1]", 3, {"a": {"b": 1}}, {"a": [[1]]}, {"a": b"\xff"}, '{"a":' * 99_999],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_facts_is_refused(value: object) -> None:
    with pytest.raises(CellError) as raised:
        facts_cell(value)
    assert raised.value.reason == "bad-facts"


@pytest.mark.parametrize(
    ("value", "picture"),
    [
        ({"bytes": b"png", "path": "a.png"}, b"png"),
        ({"bytes": None, "path": "a.png"}, "a.png"),
        ({"bytes": NAN, "path": "a.png"}, "a.png"),
        ({"bytes": None, "path": None}, None),
        (bytearray(b"png"), b"png"),
        ("a.png", "a.png"),
        ("", None),
    ],
)
def test_pictures(value: object, picture: object) -> None:
    assert picture_cell(value) == picture


@pytest.mark.parametrize("value", [3, ["a.png"], {"url": "x"}, {"bytes": 3}, True], ids=repr)
def test_what_is_no_picture_is_refused(value: object) -> None:
    with pytest.raises(CellError) as raised:
        picture_cell(value)
    assert raised.value.reason == "not-a-picture"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.characters()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(VALUES)
def test_no_cell_ends_otherwise(value: object) -> None:
    """Whatever a cell holds, it is a text that says what the cell said, or a `CellError`."""
    for cell in (text_cell, id_cell, list_cell, facts_cell, picture_cell):
        try:
            result = cell(value)
        except CellError:
            continue
        if cell is text_cell and isinstance(value, str):
            assert result == value
        if isinstance(result, str):
            assert result not in {"None", "nan", "True", "False"} or value == result or value == [result]
            assert not result.startswith(("['", "{'", "b'")) or isinstance(value, str | list | bytes)
            json.dumps(result).encode()
