"""A user's tables as rows to embed: one reading whatever the format, ids checked before the work begins."""

from __future__ import annotations

import csv
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gme_data.errors import FoundryError
from gme_embedder.corpus import rows as corpus_rows
from gme_embedder.corpus.rows import identify_corpus, open_corpus, read_corpus

ROWS = [
    {"id": "a", "title": "Chile", "text": "A country.", "image": None},
    {"id": "b", "title": None, "text": "Lima", "image": None},
    {"id": "c", "title": None, "text": None, "image": "flag.png"},
]


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("name", "write"),
    [("c.parquet", write_parquet), ("c.PARQUET", write_parquet), ("c.jsonl", write_jsonl), ("c.csv", write_csv)],
)
def test_every_format_gives_the_same_items(tmp_path, name, write):
    write(tmp_path / name, ROWS)
    table = open_corpus(tmp_path / name)
    rows = list(read_corpus(table))
    assert [row.item for row in rows] == [
        {"title": "Chile", "text": "A country."},
        {"text": "Lima"},
        {"image": "flag.png"},
    ]
    assert [row.id for row in rows] == ["a", "b", "c"]
    assert str(rows[2].picture) == "flag.png"
    assert identify_corpus(table).rows == 3


def test_cells_mean_what_they_mean_to_the_import(tmp_path):
    """The pictures of `datasets`, NaN for nothing, ids that a data frame made floats, lists of sentences."""
    images = pa.array([{"bytes": b"png", "path": "x.png"}, {"bytes": None, "path": "y.png"}, None, None])
    table = {
        "id": pa.array([1.0, 2.0, 3.0, 4.0]),
        "image": images,
        "title": pa.array([math.nan] * 4),
        "text": pa.array([None, None, ["Two", "parts."], None]),
    }
    pq.write_table(pa.table(table), tmp_path / "hf.parquet")
    rows = list(read_corpus(open_corpus(tmp_path / "hf.parquet")))
    assert [row.id for row in rows] == ["1", "2", "3", "4"]
    assert [row.item for row in rows] == [{"image": b"png"}, {"image": "y.png"}, {"text": "Two parts."}, ""]
    assert rows[3].error == "no text, title or image"
    assert rows[3].label == "hf.parquet, row 3, id '4'"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "text: expected a text"),
        ([1, 2], "text: expected a text"),
        ("\ud800", "lone surrogate"),
        (True, "text"),
    ],
)
def test_a_cell_that_is_no_text_is_an_error_of_its_row(tmp_path, value, message):
    write_jsonl(tmp_path / "c.jsonl", [{"id": "a", "text": "fine"}, {"id": "b", "text": value}])
    first, second = read_corpus(open_corpus(tmp_path / "c.jsonl"))
    assert first.error is None
    assert message in second.error
    assert second.label == "c.jsonl, line 2, id 'b'"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", None], "c.jsonl, line 2: id: expected an id, found nothing"),
        (["a", ""], "line 2: id: expected an id, found an empty text"),
        ([1, [2]], "line 2: id"),
        ([1, 2.5], "line 2: id"),
        (["a", "b", "a"], "The id 'a' stands twice: c.jsonl, line 1 and c.jsonl, line 3"),
        ([1, "1"], "The id '1' stands twice"),
    ],
)
def test_ids_are_checked_first(tmp_path, ids, message):
    write_jsonl(tmp_path / "c.jsonl", [{"id": row_id, "text": "x"} for row_id in ids])
    with pytest.raises(FoundryError, match=message):
        identify_corpus(open_corpus(tmp_path / "c.jsonl"))


def test_a_row_without_an_id_may_be_skipped_but_not_a_double(tmp_path):
    write_jsonl(tmp_path / "c.jsonl", [{"text": "x"}, {"id": "b", "text": "y"}])
    table = open_corpus(tmp_path / "c.jsonl")
    assert identify_corpus(table, skip_bad_rows=True).rows == 2
    assert [row.error for row in read_corpus(table)] == ["there is no 'id'", None]
    write_jsonl(tmp_path / "c.jsonl", [{"id": "b", "text": "x"}, {"id": "b", "text": "y"}])
    with pytest.raises(FoundryError, match="stands twice"):
        identify_corpus(table, skip_bad_rows=True)


def test_ids_of_two_files_are_told_apart_too(tmp_path):
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", [{"id": "1", "text": "x"}])
    write_csv(tmp_path / "in" / "b.csv", [{"id": 1, "text": "y"}])
    with pytest.raises(FoundryError, match=r"The id .1. stands twice: a.parquet, row 0 and b.csv, line 2"):
        identify_corpus(open_corpus(tmp_path / "in"))


def test_ids_that_share_a_short_digest_are_no_doubles(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_rows, "_short_digest", lambda text: text[:1].encode() * 8)
    write_jsonl(tmp_path / "c.jsonl", [{"id": row_id, "text": "x"} for row_id in ("a1", "a2", "b")])
    assert identify_corpus(open_corpus(tmp_path / "c.jsonl")).rows == 3
    write_jsonl(tmp_path / "c.jsonl", [{"id": row_id, "text": "x"} for row_id in ("a1", "a2", "a1")])
    with pytest.raises(FoundryError, match="'a1' stands twice"):
        identify_corpus(open_corpus(tmp_path / "c.jsonl"))


def test_a_corpus_is_known_by_content_and_by_paths_below_its_folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_parquet(tmp_path / "in" / "deep" / "a.parquet", [{"id": "1", "text": "x"}])
    before = identify_corpus(open_corpus(tmp_path / "in"))
    assert list(before.files) == ["deep/a.parquet"]
    (tmp_path / "in" / "deep" / "a.parquet").rename(tmp_path / "in" / "deep" / "b.parquet")
    assert identify_corpus(open_corpus(tmp_path / "in")) != before
    alone = identify_corpus(open_corpus(tmp_path / "in" / "deep" / "b.parquet"))
    (tmp_path / "in" / "deep" / "b.parquet").rename(tmp_path / "c.parquet")
    assert identify_corpus(open_corpus(tmp_path / "c.parquet")) == alone


@pytest.mark.parametrize("rows", [[{"name": "x"}], [{"id": "x", "txt": "y"}]])
def test_columns_that_are_missing_are_named(tmp_path, rows):
    write_csv(tmp_path / "c.csv", rows)
    with pytest.raises(FoundryError, match="expected columns id and text"):
        open_corpus(tmp_path / "c.csv")


def test_a_table_that_is_cut_off_in_the_middle_is_named(tmp_path):
    rows = [{"id": str(number), "text": "x" * 50 + str(number)} for number in range(5000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", row_group_size=1000, compression=None)
    table, whole = open_corpus(tmp_path / "c.parquet"), (tmp_path / "c.parquet").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "c.parquet").write_bytes(whole[:middle] + b"\xff" * 20_000 + whole[middle + 20_000 :])
    read = []
    with pytest.raises(FoundryError, match=r"c.parquet, after row \d+: not readable"):
        read.extend(read_corpus(table))
    assert len(read) >= 1000
