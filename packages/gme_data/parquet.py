"""Parquet whose bytes depend on nothing but the rows: fixed codec and row groups, shard names that say how many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.errors import FoundryError

SHARD_BYTES = 256 * 2**20
ROW_GROUP_ROWS = 1024

Row = Mapping[str, Any]


def write_table(path: Path, rows: Sequence[Row], schema: pa.Schema, *, row_group_rows: int = ROW_GROUP_ROWS) -> None:
    """Write `rows` to one file, synced to disk before the call returns."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=row_group_rows)
    _sync(path)


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read one file.

    Raises:
        FoundryError: The file is missing, is no parquet, or has not the columns of `schema`.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise FoundryError(f"Missing table: {path}", hint="Run the step that makes it, or `gme pipeline`.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise FoundryError(
            f"Corrupt parquet file: {path}: {error}", hint="Delete its folder and run its step again."
        ) from error
    if schema is not None and not set(schema.names) <= set(table.column_names):
        missing = sorted(set(schema.names) - set(table.column_names))
        raise FoundryError(f"{path}: column(s) missing: {', '.join(missing)}; found {', '.join(table.column_names)}.")
    return table


def read_rows(path: Path, schema: pa.Schema | None = None) -> list[dict[str, Any]]:
    """Read one file as a list of dicts. See `read_table` for what it raises."""
    rows: list[dict[str, Any]] = read_table(path, schema).to_pylist()
    return rows


def write_shards(
    folder: Path,
    stem: str,
    rows: Iterable[Row],
    schema: pa.Schema,
    *,
    shard_bytes: int = SHARD_BYTES,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> list[Path]:
    """Write `rows` as ``{stem}-00000-of-00003.parquet`` files of about `shard_bytes` of raw data each.

    An empty input makes one empty shard, so that a reader always finds the schema.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    writer: pq.ParquetWriter | None = None
    group: list[Row] = []
    size = 0

    def write_group() -> None:
        nonlocal writer
        if writer is None:
            parts.append(folder / f".{stem}-{len(parts):05d}.part")
            writer = pq.ParquetWriter(parts[-1], schema, compression="zstd", compression_level=3)
        writer.write_table(pa.Table.from_pylist(group, schema=schema))
        group.clear()

    def close_shard() -> None:
        nonlocal writer, size
        if writer is not None:
            writer.close()
            _sync(parts[-1])
        writer, size = None, 0

    for row in rows:
        group.append(row)
        size += _size(row)
        # A row group at a time is in memory, whatever the shard's size.
        if len(group) == row_group_rows or size >= shard_bytes:
            write_group()
        if size >= shard_bytes:
            close_shard()
    if group or not parts:
        write_group()
    close_shard()
    # The count is known only now; until then the files have names that no reader looks for.
    return [
        part.rename(folder / f"{stem}-{number:05d}-of-{len(parts):05d}.parquet") for number, part in enumerate(parts)
    ]


def shard_paths(folder: Path, stem: str) -> list[Path]:
    """The shards of `stem` in order.

    Raises:
        FoundryError: There is none, or one of the ``of`` count is missing.
    """
    paths = sorted(folder.glob(f"{stem}-*-of-*.parquet"))
    if not paths:
        raise FoundryError(f"No {stem} shards in {folder}", hint="Run the step that makes them, or `gme pipeline`.")
    expected = int(paths[0].stem.rpartition("-")[2])
    if len(paths) != expected:
        raise FoundryError(f"{folder}: {len(paths)} of {expected} {stem} shards are there.", hint="Run the step again.")
    return paths


def read_shards(folder: Path, stem: str, schema: pa.Schema | None = None) -> list[dict[str, Any]]:
    """All rows of all shards of `stem`, in order."""
    return [row for path in shard_paths(folder, stem) for row in read_rows(path, schema)]


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _size(value: object) -> int:
    """About how many bytes a value takes; what is nested counts, as an example is all nested texts."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict | Mapping):  # dict first: asking an abstract class takes ten times as long
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 16
    return sum([len(part) if type(part) is str else _size(part) for part in value])
