"""Reads what strangers keep their passages in: parquet, JSON lines or CSV, their columns called as they please."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.errors import FoundryError, did_you_mean

COLUMNS = (
    "id",
    "text",
    "title",
    "aliases",
    "kind",
    "domain",
    "entity_group",
    "facts",
    "picture",
    "page",
    "licence",
    "source",
)
"""What a passage may say; only `text` must be there."""
_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv")


def read_table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file, or of all files of a folder in the order of their names.

    Raises:
        FoundryError: No such file, another kind of file, or a line that can't be read; names file and line.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        if not files:
            raise FoundryError(f"{path}: no {', '.join(_SUFFIXES)} file in this folder.")
        for file in files:
            yield from read_table_rows(file)
        return
    if not path.is_file():
        near = did_you_mean(path.name, (one.name for one in path.parent.glob("*"))) if path.parent.is_dir() else ""
        raise FoundryError(f"No such file: {path}.{near}")
    readers = {".parquet": _parquet, ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv, ".tsv": _csv}
    if path.suffix not in readers:
        raise FoundryError(f"{path}: passages are read from {', '.join(readers)} files.")
    yield from readers[path.suffix](path)


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row by our names; `columns` maps ours to theirs, for those that are called otherwise."""
    return {name: row.get(columns.get(name, name)) for name in COLUMNS}


def require_columns(row: Mapping[str, Any], columns: Mapping[str, str], path: Path) -> None:
    """Check that the columns are there that must be or were named.

    Raises:
        FoundryError: One is not; suggests one that is.
    """
    for ours in columns:
        if ours not in COLUMNS:
            raise FoundryError(
                f"columns: passages have no {ours!r}.{did_you_mean(ours, COLUMNS)} One of {', '.join(COLUMNS)}."
            )
    for ours, theirs in {"text": "text", **columns}.items():
        if theirs not in row:
            near = did_you_mean(theirs, row)
            raise FoundryError(
                f"{path}: no column {theirs!r} for {ours!r}.{near} Found {', '.join(row)}.",
                hint="Say which column it is: `corpus: {columns: {text: YOUR_COLUMN}}` in the config.",
            )


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(1024):
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise FoundryError(f"{path}: not a readable parquet file: {error}") from error


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FoundryError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise FoundryError(f"{path}, line {number}: expected an object, found {type(row).__name__}.")
            yield row


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 KiB refuses long passages
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
        try:
            for row in csv.DictReader(handle, delimiter="\t" if path.suffix == ".tsv" else ","):
                yield {str(name): value for name, value in row.items()}
        except csv.Error as error:
            raise FoundryError(f"{path}: not readable as CSV: {error}") from error
