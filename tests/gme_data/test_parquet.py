"""Tables of ours: what a column can't hold is named when it is written, and when it is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gme_data.errors import FoundryError
from gme_data.parquet import read_rows, read_table, write_shards, write_table

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("count", pa.int32()),
        pa.field("item", pa.struct([pa.field("text", pa.string()), pa.field("image", pa.string())])),
        pa.field("words", pa.list_(pa.string())),
    ]
)


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "text": "a text", "count": 1, "item": {"text": "t", "image": None}, "words": ["w"], **changes}


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"text": "half of a pair: \ud83d"}, "text"),
        ({"item": {"text": "\udc00", "image": None}}, "item"),
        ({"words": ["w", "\ud800"]}, "words"),
        ({"text": 3}, "text"),
        ({"text": ["a", "list"]}, "text"),
        ({"text": float("nan")}, "text"),
        ({"count": "1"}, "count"),
        ({"count": 2**40}, "count"),
        ({"count": 2**70}, "count"),
        ({"count": True}, "count"),
        ({"item": "text"}, "item"),
        ({"id": None}, "id"),
    ],
)
def test_a_value_that_does_not_fit_is_named_when_written(tmp_path: Path, changes: dict[str, Any], column: str) -> None:
    rows = [row(), row(id="b"), row(**{"id": "the culprit", **changes}), row(id="d")]
    name = "None" if column == "id" else "'the culprit'"
    with pytest.raises(FoundryError, match=rf"t\.parquet: row 2 \(id {name}\), column '{column}', "):
        write_table(tmp_path / "t.parquet", rows, SCHEMA)
    assert not (tmp_path / "t.parquet").exists()
    with pytest.raises(FoundryError, match=f"row 2 .*, column '{column}', "):
        write_shards(tmp_path / "shards", "rows", rows, SCHEMA)


def test_columns_of_another_type_are_read_where_each_value_stays_what_it_is(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(["a", "b"]).dictionary_encode(),
            "text": pa.array(["x", None], pa.large_string()),
            "count": pa.array([1, 2], pa.int64()),
            "item": pa.array([{"image": "i", "text": "t"}] * 2, pa.struct({"image": pa.string(), "text": pa.string()})),
            "words": pa.array([["w"], None], pa.large_list(pa.large_string())),
            "more": pa.array([0.5, 1.5]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", SCHEMA)
    assert [found.schema.field(name).type for name in SCHEMA.names] == SCHEMA.types
    assert found.to_pylist()[0] == {
        "id": "a", "text": "x", "count": 1, "item": {"text": "t", "image": "i"}, "words": ["w"], "more": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("id", pa.array([1, 2]), "column 'id' is int64, string expected"),
        ("id", pa.array(["a", None]), "row 1, column 'id' is null, string expected"),
        ("text", pa.array([["a"], ["b"]]), "column 'text' is list<.*>, string expected"),
        ("text", pa.array([b"a", b"b"]), "column 'text' is binary, string expected"),
        ("count", pa.array([1.0, 2.0]), "column 'count' is double, int32 expected"),
        ("count", pa.array([1, 2**40]), "column 'count' is int64, int32 expected: Integer value 1099511627776"),
        ("words", pa.array([[1], [2]]), "column 'words' is list<.*int64>, list<.*string> expected"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(
    tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    table = pa.Table.from_pylist([row(), row(id="b")], schema=SCHEMA)
    pq.write_table(table.set_column(SCHEMA.names.index(column), column, values), tmp_path / "t.parquet")
    with pytest.raises(FoundryError, match=rf"t\.parquet: {message}"):
        read_table(tmp_path / "t.parquet", SCHEMA)


def test_a_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": ["a", "b"], "text": texts}), tmp_path / "t.parquet")
    with pytest.raises(FoundryError, match=r"t\.parquet: row 1, column 'text' is not UTF-8"):
        read_rows(tmp_path / "t.parquet")
