"""Tables as people have them: every format gives the same rows, and what can't be read is named by file and line."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.parquet import read_rows, read_table
from gme_data.tables import Row, RowError, Table, count_by_suffix, open_table
from gme_data.task_tables import read_items
from gme_data.tasks import CORPUS_SCHEMA

ROWS = [
    {"id": "1", "text": "Alpha."},
    {"id": "2", "text": 'Bravo, with "quotes".'},
    {"id": "3", "text": "Zürich \u2028 \x85 é"},
]


def values(table: Table, columns: list[str] | None = None) -> list[dict[str, Any]]:
    rows = list(table.rows(columns))
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.values for row in rows if isinstance(row, Row)]


def errors(path: Path) -> list[tuple[int, str]]:
    return [(row.number, row.reason) for row in open_table(path).rows() if isinstance(row, RowError)]


def numbers(path: Path) -> list[int]:
    return [row.number for row in open_table(path).rows() if isinstance(row, Row)]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith("jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif name.endswith(".tsv"):
        text = "\t".join(rows[0]) + "\n" + "".join("\t".join(row.values()) + "\n" for row in rows)
    else:
        with (path.parent / "plain").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        text = (path.parent / "plain").read_bytes().decode()
        (path.parent / "plain").unlink()
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.lower().endswith(".gz") else data)
    return path


@pytest.mark.parametrize(
    "name", ["p.parquet", "p.jsonl", "p.csv", "p.tsv", "P.PARQUET", "P.JsonL", "p.jsonl.gz", "p.CSV.GZ", "p.tsv.gz"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    table = open_table(write(tmp_path / name))
    assert values(table) == ROWS
    whole = "jsonl" in name.lower()  # a line of JSON is read as a whole, so nothing is saved by cutting it
    assert whole or values(table, ["text"]) == [{"text": row["text"]} for row in ROWS]
    assert table.count() in (3, None)


def test_datasets_folders(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    table = open_table(tmp_path / "saved")
    assert values(table) == ROWS
    assert table.count() == 3
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "single")
    assert values(open_table(tmp_path / "single")) == ROWS
    splits = {name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "splits")
    with pytest.raises(FoundryError, match="the splits test, train"):
        open_table(tmp_path / "splits")


def test_a_folder_is_read_whole_and_what_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "a.csv", ROWS[:1])
    write(tmp_path / "B.CSV", ROWS[1:2])
    write(tmp_path / "below" / "c.jsonl.gz", ROWS[2:])
    for name in ("d.json", "e.xlsx", "f.png", "g.PNG", "README", ".DS_Store", "._a.csv"):
        (tmp_path / name).write_text("x")
    table = open_table(tmp_path)
    assert [file.name for file in table.files] == ["B.CSV", "a.csv", "below/c.jsonl.gz"]
    assert sorted(row["id"] for row in values(table)) == ["1", "2", "3"]
    assert table.passed_over == ("README", "d.json", "e.xlsx", "f.png", "g.PNG")
    assert "2 .png (f.png)" in count_by_suffix(table.passed_over)


def test_the_digest_covers_paths_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "kats").mkdir()
    write(tmp_path / "kats" / "a.csv")
    before = open_table(tmp_path).digest()
    (tmp_path / "kats").rename(tmp_path / "cats")
    assert open_table(tmp_path).digest() != before


@pytest.mark.parametrize("suffix", [".xlsx", ".json", ".zip", ".parquet.gz", ".doc", ".feather", ""])
def test_other_formats_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_text("x")
    with pytest.raises(FoundryError, match="not a table that is read") as raised:
        open_table(path)
    assert raised.value.hint or suffix in (".parquet.gz", ".doc", "")


def test_a_missing_file_has_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path / "passages.csv")
    with pytest.raises(FoundryError, match=r"Did you mean 'passages\.csv'"):
        open_table(tmp_path / "pasages.csv")


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl"])
def test_utf_8_with_its_mark(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert values(open_table(path)) == ROWS


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl", "p.csv.gz"])
def test_other_encodings_are_refused_by_line_or_named(tmp_path: Path, name: str) -> None:
    text = "id,text\n1,Berne\n2,Zürich\n".replace(",", "\t" if "tsv" in name else ",")
    if "jsonl" in name:
        text = '{"id": "1"}\n{"id": "2"}\n{"text": "Zürich"}\n'
    data = text.encode("cp1252")
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(FoundryError, match=r"line 3: not UTF-8: byte \d+ of the line is 0xfc") as raised:
        list(open_table(path).rows())
    assert "CP1252" in str(raised.value.hint)
    *_, last = values(open_table(path, "cp1252"))
    assert last["text"] == "Zürich"
    with pytest.raises(FoundryError, match="Unknown encoding 'cp1525'"):
        open_table(path, "cp1525")


def test_utf_16_is_named_and_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,text\n1,Zürich\n", encoding="utf-16")
    with pytest.raises(FoundryError, match="in UTF-16, not in UTF-8"):
        list(open_table(path).rows())
    assert values(open_table(path, "utf-16")) == [{"id": "1", "text": "Zürich"}]
    with pytest.raises(FoundryError, match="not in the encoding ascii"):
        list(open_table(write(tmp_path / "q.csv"), "ascii").rows())


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text('id\ttext\n1\t"Open quote\n2\tPlain\n3\t"Whole"\n4\t5" disk\n')
    assert [row["text"] for row in values(open_table(path))] == ['"Open quote', "Plain", '"Whole"', '5" disk']


def test_an_open_quote_costs_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('id,text\n1,"open\n2,plain\n3,"open again\n4,"a\nb"\n5,plain\n6,"open to the end\n7,plain\n')
    assert errors(path) == [(2, "unclosed-quote"), (4, "unclosed-quote"), (8, "unclosed-quote")]
    assert numbers(path) == [3, 5, 7, 9]
    assert next(row.values for row in open_table(path).rows() if row.number == 5) == {"id": "4", "text": "a\nb"}


def test_an_open_quote_that_closes_elsewhere_costs_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('id,text\n1,"open\n2,plain\n3,"x",y\n4,plain\n')
    assert errors(path) == [(2, "unclosed-quote"), (4, "wrong-shape")]
    assert numbers(path) == [3, 5]


@pytest.mark.parametrize(("name", "comma"), [("p.csv", ","), ("p.tsv", "\t")])
def test_rows_of_the_wrong_shape_are_refused_by_line(tmp_path: Path, name: str, comma: str) -> None:
    path = tmp_path / name
    path.write_text("id,text\n1,a\n2\n\n3,b,c\n4,d\n".replace(",", comma))
    assert errors(path) == [(3, "wrong-shape"), (5, "wrong-shape")]
    assert numbers(path) == [2, 6]
    (short, _) = [row for row in open_table(path).rows() if isinstance(row, RowError)]
    assert short.location == f"{name}, line 3"
    assert short.message == "1 fields where the header has 2"


def test_windows_line_ends_and_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b'id;text\r\n1;a, b\r\n2;"c\r\nd"\r\n')
    assert values(open_table(path)) == [{"id": "1", "text": "a, b"}, {"id": "2", "text": "c\r\nd"}]


def test_lines_that_are_no_objects_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = ['{"id": 1}', "", "{broken", "[1]", "3", '{"a": 1, "a": 2}', "[" * 99_999, '{"n": ' + "9" * 5000 + "}"]
    path.write_text("\n".join([*lines, '{"id": 2}']))
    assert errors(path) == [(number, "not-json") for number in (3, 4, 5, 6, 7, 8)]
    assert numbers(path) == [1, 9]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "id,text,id\n1,a,2\n", "names the column 'id' twice"),
        ("p.tsv", "id\tid\n1\ta\n", "names the column 'id' twice"),
        ("p.csv", "", "the file is empty"),
        ("p.csv", "id,te\rxt\n1,a\n", "the header can't be read"),
        ("p.csv", '"id,text\n1,a\n', "the header can't be read"),
        ("p.csv", 'id,"te"xt\n1,a\n', "the header can't be read"),
        ("p.csv.gz", "not gzip", "damaged|can't be read"),
        ("p.parquet", "x", "not a readable Parquet file"),
    ],
)
def test_files_that_can_not_be_read_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, newline="")
    with pytest.raises(FoundryError, match=message) as raised:
        list(open_table(tmp_path / name).rows())
    assert name in str(raised.value)


def test_a_packed_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress("".join(f'{{"id": {n}}}\n' for n in range(10_000)).encode())[:-500])
    with pytest.raises(FoundryError, match=r"p\.jsonl\.gz, after line"):
        list(open_table(path).rows())


def test_a_parquet_file_whose_column_is_not_called_by_utf_8_is_named(tmp_path: Path) -> None:
    """By whoever reads tables: pyarrow tells of it when the file is opened, or only when the names are asked for."""
    path = tmp_path / "images-00000-of-00001.parquet"
    pq.write_table(pa.table({"id": ["a"], "quelle": ["b"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"quelle", b"\x94uelle"))
    (tmp_path / "corpus.parquet").write_bytes(path.read_bytes())
    schema = pa.schema([pa.field("id", pa.string())])
    doors: list[Callable[[], object]] = [
        lambda: list(open_table(path).rows()),
        lambda: open_table(path).count(),
        lambda: read_table(path),
        lambda: read_table(path, schema),
        lambda: read_rows(path),
        lambda: ImageStore([tmp_path]),
        lambda: read_items(tmp_path, "corpus", CORPUS_SCHEMA, titled=True),
    ]
    for door in doors:
        with pytest.raises(FoundryError, match=r"images-00000-of-00001\.parquet|corpus\.parquet"):
            door()


def test_parquet_damaged_in_the_middle_names_file_and_row(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"text": [f"{n} " * 50 for n in range(4096)]}), path, row_group_size=1024)
    data = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(2).column(0).dictionary_page_offset
    data[at : at + 400] = b"\xff" * 400
    path.write_bytes(data)
    rows = []
    with pytest.raises(FoundryError, match=r"p\.parquet, after row 2048"):
        rows.extend(open_table(path).rows())


def test_parquet_with_a_column_that_ends_before_its_time_is_refused() -> None:
    """Found by 29,453 damaged files: the reader of batches gave 16 of 20 rows without a word."""
    path = Path(__file__).with_name("short_column.parquet")
    with pytest.raises(FoundryError, match=r"short_column\.parquet: damaged: 16 rows can be read of the 20"):
        values(open_table(path))


def test_parquet_cells_that_python_can_not_hold_cost_their_row(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")]
    )
    pq.write_table(pa.table({"text": texts}), tmp_path / "p.parquet")
    assert errors(tmp_path / "p.parquet") == [(1, "unreadable")]
    assert numbers(tmp_path / "p.parquet") == [0, 2]


def test_parquet_that_names_a_column_twice(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"]), tmp_path / "p.parquet")
    with pytest.raises(FoundryError, match="'id' stands twice"):
        open_table(tmp_path / "p.parquet").require_columns(["id"], "")


def test_columns_are_required_of_every_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"id": "1"}] * 2000 + [{"id": "2", "text": "late"}])
    open_table(tmp_path).require_columns(["text"], "")
    write(tmp_path / "b.csv", [{"id": "1", "txt": "a"}])
    with pytest.raises(FoundryError, match=r"b\.csv: no column 'text'\. Did you mean 'txt'\? It has id, txt"):
        open_table(tmp_path).require_columns(["text"], "")


@given(st.lists(st.fixed_dictionaries({"id": st.text(), "text": st.text()}), min_size=1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    rows = [{name: text.encode("utf-8", "ignore").decode() for name, text in row.items()} for row in rows]
    write(folder / "p.jsonl", rows)
    assert values(open_table(folder / "p.jsonl")) == rows
    # Carriage returns alone are line ends to CSV's writer and reader, and need no quotes to Python's writer.
    write(folder / "p.csv", rows)
    assert values(open_table(folder / "p.csv")) == rows
