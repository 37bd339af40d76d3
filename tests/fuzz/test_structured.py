"""The one reader of structured data: what it takes is what Python's make of it, and all else is a `FoundryError`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzz.harness import try_damaged

from gme_data.structured import MAX_DEPTH, load_json, parse_yaml, read_json_lines

RECORD: dict[str, Any] = {
    "name": 'Zürich \U0001f3d4 \\ "quoted"\n',
    "number": -12.5e-3,
    "whole": 9007199254740993,
    "nothing": None,
    "lists": [[1, 2], [True, False], []],
    "inner": {"a": {"b": {"c": ["x"] * 5}}, "empty": {}},
}
JSON = json.dumps(RECORD, ensure_ascii=False, indent=1).encode()
YAML = yaml.safe_dump(RECORD, allow_unicode=True).encode() + b"base: &base {a: 1}\nmore: {<<: *base, b: 2}\n"


def require_strict(value: object, depth: int = 0) -> None:
    """All that is promised of a value: it is finite, shallow, and UTF-8 can hold it."""
    assert depth <= MAX_DEPTH
    if isinstance(value, dict | list):
        for member in [*value, *value.values()] if isinstance(value, dict) else value:
            require_strict(member, depth + 1)
    elif isinstance(value, str):
        value.encode()
    elif isinstance(value, float):
        assert math.isfinite(value)
    else:
        assert value is None or isinstance(value, int)
        assert value is None or -(2**63) <= value < 2**63


def load_yaml(text: str) -> object:
    """By libyaml, where it is there: Python's own parser refuses more."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe


@pytest.mark.parametrize("by", [json.loads, load_yaml], ids=["json", "yaml"])
@pytest.mark.hardening("fuzz", "Z9", "the reader of structured files")
def test_what_is_taken_is_taken_as_it_stands(by: Callable[[str], object]) -> None:
    whole, read, share = (JSON, load_json, 16.0) if by is json.loads else (YAML, parse_yaml, 1.0)

    def door(data: bytes) -> None:
        value = read(data, where="here")
        assert value == by(data.decode())
        require_strict(value)

    tokens = (b"&a ", b"*a", b"<<: *base", b"!!int ", b"? ", b"- ", b"|\n") if by is load_yaml else ()
    assert try_damaged(whole, door, share=share, tokens=tokens, fields=True)


@pytest.mark.hardening("fuzz", "Z9", "the reader of structured files")
def test_a_damaged_line_costs_itself_and_what_it_was_torn_into(tmp_path: Path) -> None:
    lines = [{"number": number, "text": "größer" * 3} for number in range(12)]
    path = tmp_path / "lines.jsonl"

    def door(data: bytes) -> None:
        path.write_bytes(data)
        bad: list[Any] = []
        read = list(read_json_lines(path, dict[str, Any], bad))
        assert len(read) + len(bad) == sum(bool(line.strip()) for line in data.split(b"\n"))
        for record in read:
            require_strict(record)

    whole = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert try_damaged(whole, door, share=2) == 0, "a damaged line is told, not raised"
