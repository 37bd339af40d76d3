"""The door of users' tables: a row is handed over as it was written, refused by line, or the file is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.harness import EXAMPLES, fuzzed, try_damaged
from fuzz.values import JSON_VALUES, TEXTS
from hypothesis import given
from hypothesis import strategies as st

from gme_data.cells import CellError, id_cell, text_cell
from gme_data.errors import FoundryError
from gme_data.parquet import read_shards
from gme_data.steps import StepContext
from gme_data.tables import Row, RowError, open_table
from gme_data.task_tables import read_judgements
from gme_data.tasks import QRELS_SCHEMA
from gme_synthesis.corpus.importing import ImportConfig, import_corpus

GOOD = [{"id": str(n), "text": f'Passage {n}, with a "quote", Zürich', "title": "a\tb" * (n % 2)} for n in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def read(path: Path) -> list[Row | RowError] | None:
    """The rows; None if the file is refused."""
    try:
        return list(open_table(path).rows())
    except FoundryError as error:
        assert path.name in str(error), error
        return None


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@fuzzed(inputs=5)
@given(rows=st.lists(st.dictionaries(TEXTS, JSON_VALUES, max_size=3), min_size=5, max_size=8))
@pytest.mark.hardening("fuzz", "Z1", "tables")
def test_json_lines_round_trip(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read_back = read(folder / "p.jsonl")
    assert read_back is not None
    for row, written in zip(read_back, rows, strict=True):
        assert isinstance(row, Row)
        assert same(row.values, written)


@fuzzed()
@given(
    rows=st.lists(
        st.lists(TEXTS.filter(lambda text: text.isprintable() or max(text) < "\ud800"), min_size=2, max_size=2)
    )
)
@pytest.mark.hardening("fuzz", "Z1", "tables")
def test_csv_round_trip(folder: Path, rows: list[list[str]]) -> None:
    rows = [[text.encode("utf-8", "ignore").decode() for text in row] for row in rows]
    with (folder / "p.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["id", "text"], *rows])
    read_back = read(folder / "p.csv")
    assert read_back is not None
    assert [list(row.values.values()) for row in read_back if isinstance(row, Row)] == rows


def written(name: str) -> bytes:
    """A good file of each format."""
    if name == "p.parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(GOOD), buffer, row_group_size=5)
        return buffer.getvalue()
    if name.startswith("p.jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in GOOD)
    else:
        lines = io.StringIO(newline="")
        csv.writer(lines, delimiter="\t" if "tsv" in name else ",").writerows(
            [GOOD[0], *(row.values() for row in GOOD)]
        )
        text = lines.getvalue()
    return gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()


FILES = {name: written(name) for name in ("p.parquet", "p.jsonl", "p.csv", "p.tsv", "p.jsonl.gz", "p.csv.gz")}


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.hardening("fuzz", "Z1", "tables")
def test_damaged_tables_are_refused_or_read_as_they_stand(folder: Path, name: str) -> None:
    path = folder / name

    def read_as_it_stands(data: bytes) -> None:
        path.write_bytes(data)
        rows = list(open_table(path).rows())
        if name == "p.parquet":
            check_parquet(path, rows)
            return
        lines = (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8-sig").split("\n")
        for row in rows:
            if name.startswith("p.jsonl"):
                check_json_line(row, lines[row.number - 1])
            elif isinstance(row, Row):
                check_delimited_row(row, lines[row.number - 1 :], "\t" if "tsv" in name else ",")

    refused = try_damaged(FILES[name], read_as_it_stands)
    assert 0 < refused < EXAMPLES


def check_parquet(path: Path, rows: list[Row | RowError]) -> None:
    """Rows are what pyarrow's reader of whole tables makes of the file."""
    try:
        table = pq.read_table(path)
    except pa.ArrowException:
        # The reader of whole tables stumbles over a length that the reader of batches does not need: all is there.
        assert [row.values for row in rows if isinstance(row, Row)] == GOOD
        return
    assert [row.number for row in rows] == list(range(len(table)))
    for row in rows:
        if isinstance(row, Row):  # a row that Python can't hold is told, and pyarrow can't give it either
            assert [row.values] == table.slice(row.number, 1).to_pylist()


def check_json_line(row: Row | RowError, line: str) -> None:
    """A row is what Python's own reader makes of the line."""
    if isinstance(row, Row):
        assert same(row.values, json.loads(line))
        return
    try:
        value = json.loads(line, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
    except (ValueError, RecursionError):
        return
    twice = isinstance(value, list) and len({*map(str, value)}) < len(value)
    assert twice or not line.lstrip().startswith("{") or "twice" in row.message, (row, line)


def check_delimited_row(row: Row, lines: list[str], delimiter: str) -> None:
    """A row is what Python's own reader makes of the text from its line on."""
    if delimiter == "\t":
        assert list(row.values.values()) == lines[0].rstrip("\r").split("\t")
        return
    text = io.StringIO("\n".join(lines), newline="")
    assert list(row.values.values()) == next(csv.reader(text, strict=True))


@fuzzed(inputs=25)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("id", "text", "title", "aliases", "kind", "facts", "picture", "licence"), JSON_VALUES
            ),
        ),
        min_size=25,
        max_size=30,
    )
)
@pytest.mark.hardening("fuzz", "Z1", "tables")
def test_every_row_of_an_import_is_a_passage_or_a_reject(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Many rows an example, since a row costs less than an import."""
    rows = [{"id": "first", "text": "A passage."}, *rows]
    (folder / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    staging = folder / "staging"
    staging.mkdir(exist_ok=True)
    for path in staging.rglob("*.parquet"):
        path.unlink()
    counts = import_corpus(ImportConfig(passages=folder / "i.jsonl"), {}, StepContext(staging, "", folder))
    passages = {row["id"]: row for row in read_shards(staging, "passages")}
    refused = [row for row in read_shards(staging / "rejects", "rejects") if row["reason"] != "picture-not-found"]
    assert len(passages) + len(refused) == len(rows)
    assert counts["passages"] == len(passages)
    expected = {}
    for row in rows:
        try:
            expected.setdefault(id_cell(row.get("id")), text_cell(row.get("text")))
        except CellError:
            continue
    for id_, passage in passages.items():
        assert passage["text"] == expected[id_] or list(expected).count(id_) == 1
        assert "Traceback" not in passage["text"]


@pytest.mark.hardening("fuzz", "Z1", "tables")
def test_damaged_judgements_are_refused_or_read_as_they_stand(folder: Path) -> None:
    path = folder / "qrels.trec"

    def read_as_it_stands(data: bytes) -> None:
        path.write_bytes(data)
        rows = read_judgements(folder, "test", QRELS_SCHEMA)
        lines = [line.split() for line in data.decode("utf-8-sig").split("\n") if line.split()]
        assert [(row.query, row.doc, row.relevance) for row in rows] == [(q, d, int(float(r))) for q, _, d, r in lines]

    whole = "".join(f"q{n} 0 d{n} {n % 3}\n" for n in range(20)).encode()
    assert 0 < try_damaged(whole, read_as_it_stands) < EXAMPLES
