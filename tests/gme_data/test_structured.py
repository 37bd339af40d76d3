"""One door for JSON and YAML: what is strict passes as it is, all else is refused with its place."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gme_data.errors import FoundryError
from gme_data.events import append_event, read_events
from gme_data.journal import Journal, atomic_write
from gme_data.manifest import NAME, read_manifest
from gme_data.structured import (
    MAX_ALIASES,
    MAX_DEPTH,
    BadLine,
    StructureError,
    parse_json,
    parse_yaml,
    read_json,
    read_json_lines,
    read_yaml,
)


@dataclass(frozen=True)
class Point:
    name: str
    place: tuple[float, ...]
    count: int = 0


@pytest.mark.parametrize(
    "data",
    [
        b"NaN", b"[Infinity]", b"-Infinity", b"1e999", rb'"\ud800"', rb'{"\udc00": 1}', b'"\xff"', b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}", b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), b"[" * 100_000, b"1" * 5000, b"9" * 30,
        b"[1,]", b'"\x00"', b"", b"{}x", b"'a'", b"{a: 1}",
    ],
)  # fmt: skip
def test_json_that_is_not_strict_is_refused(data: bytes) -> None:
    with pytest.raises(StructureError, match=r"^the reply: ") as refused:
        parse_json(data, object, where="the reply")
    assert str(refused.value) == f"the reply: {refused.value.reason}"


@pytest.mark.parametrize(
    "data",
    [
        "a: .nan", "a: [.inf]", 'a: "\\uD800"', "a: 1" + "0" * 5000, "a: 1\na: 2", "a: {b: 1, b: 2}",
        "[" * 100_000, "a: 2026-13-45", "a: !!python/object/apply:os.system [id]", "a: \x00", "a: [",
        "a: &a [x]\nb: [" + "*a, " * (MAX_ALIASES + 1) + "]", "? [1]\n: 2", b"a: \xff",
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]),
    ],
)  # fmt: skip
def test_yaml_that_is_not_strict_is_refused(data: str | bytes) -> None:
    with pytest.raises(StructureError, match=r"^here: "):
        parse_yaml(data, where="here")


def test_what_is_strict_is_read_whole() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, "\\ud83d\\ude00", "\\u0000"]}', object, where="x") == {
        "a": [1, 2.5, None, True, "\U0001f600", "\x00"]
    }
    merged = "base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}\n"
    assert parse_yaml(merged, where="x") == {"base": {"a": 1, "b": 2}, "more": {"a": 1, "b": 3}}


def test_records_are_typed_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    path.write_text('{"name": "a", "place": [1, 2.5]}')
    assert read_json(path, Point) == Point("a", (1.0, 2.5))
    path.write_text('{"name": 1, "place": ["2"], "count": 1.5}')
    with pytest.raises(StructureError) as refused:
        read_json(path, Point)
    assert str(refused.value).startswith(f"{path}: name: Input should be a valid string; place.0: ")
    path.with_suffix(".yaml").write_text("name: a\nplace: [1]\ncount: two\n")
    with pytest.raises(StructureError, match="count: Input should be a valid integer"):
        read_yaml(path.with_suffix(".yaml"), Point)


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_text(" " * 101)
    for name, reason in (("fifo", "no regular file"), ("folder", "no regular file"), ("large", "more than 100 bytes")):
        with pytest.raises(StructureError, match=reason):
            read_json(tmp_path / name, object, max_bytes=100)
    with pytest.raises(StructureError, match="no regular file"):
        read_json(Path("/dev/zero"), object)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing", object)


def test_a_torn_line_anywhere_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, "a", number=1)
    with path.open("ab") as torn:
        torn.write(b'{"time": 1, "ki')
    append_event(path, "a", number=2)
    with path.open("ab") as damaged:
        damaged.write(b'\xff\n{"time": NaN, "kind": "a"}\n[]\n{"time": 2, "kind"')
    bad: list[BadLine] = []
    assert [event["number"] for event in read_events(path, bad=bad)] == [1, 2]
    assert [line.number for line in bad] == [2, 4, 5, 6, 7]
    assert list(read_json_lines(tmp_path / "none", dict[str, Any])) == []


def test_a_damaged_unit_of_a_journal_is_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "units")
    assert journal.get_or_run("a", lambda: [1]) == [1]
    next(tmp_path.rglob("a.json")).write_bytes(b"[1")
    assert journal.get_or_run("a", lambda: [2]) == [2]
    assert journal.get_or_run("a", lambda: [3]) == [2]


def test_simultaneous_writers_leave_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    writers = [threading.Thread(target=atomic_write, args=(path, bytes([65 + n]) * 100_000)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(path.read_bytes())) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", ".", "a//b", "./a", "a\\u0000"])
def test_a_manifest_names_only_what_lies_below_it(tmp_path: Path, name: str) -> None:
    entry = f'{{"path": "{name}", "sha256": "{"0" * 64}", "bytes": 1, "rows": null}}'
    (tmp_path / NAME).write_text(
        f'{{"step": "a", "key": "b", "config": {{}}, "code": "c", "inputs": {{}}, "files": [{entry}], "content": "", '
        '"counts": {}, "seconds": 1}'
    )
    with pytest.raises(FoundryError, match=r"Unreadable manifest: .*files\.0\.path"):
        read_manifest(tmp_path)
