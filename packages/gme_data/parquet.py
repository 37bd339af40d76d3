"""Parquet files whose bytes depend on the rows alone: fixed codec and row groups, shard names with the count."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gme_data.errors import FoundryError
from gme_data.verified import files_in

SHARD_BYTES = 256 * 2**20
ROW_GROUP_ROWS = 1024

Row = Mapping[str, Any]
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""The errors of pyarrow for a damaged file or one of another format; the last is for names that are not UTF-8."""
_UNFIT = (UnicodeEncodeError, OverflowError, TypeError, ValueError)
"""The errors of pyarrow for a value that a column can't hold, besides its own classes."""


def write_table(path: Path, rows: Sequence[Row], schema: pa.Schema, *, row_group_rows: int = ROW_GROUP_ROWS) -> None:
    """Writes `rows` to one file, synced to disk before the call returns.

    Raises:
        FoundryError: A value does not fit its column: another type, a text that UTF-8 can't hold, or null where a value
            is needed. Names the column and the row; nothing is written.
    """
    # Codec, level and row groups are fixed, so that equal rows give equal bytes.
    pq.write_table(
        _to_table(rows, schema, path), path, compression="zstd", compression_level=3, row_group_size=row_group_rows
    )
    _sync(path)


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Reads one file.

    Args:
        path: The file.
        schema: Columns that must be there, with their types. A column of another type is taken where each value stays
            what it is (dictionary or large strings, integers of another width), and refused otherwise. Columns that
            `schema` does not name stay.

    Raises:
        FoundryError: The file is missing, is no parquet, or has not the columns of `schema`: a name that is not there,
            another type, null where a value is needed.
    """
    try:
        table = pq.read_table(path)
        names = table.column_names  # raises for names that are not UTF-8
    except FileNotFoundError as error:
        raise FoundryError(f"Missing table: {path}", hint="Run the step that makes it, or `gme pipeline`.") from error
    except UNREADABLE as error:
        raise FoundryError(
            f"Corrupt parquet file: {path}: {error}", hint="Delete its folder and run its step again."
        ) from error
    return table if schema is None else _fitted(table, names, schema, path)


def read_rows(path: Path, schema: pa.Schema | None = None) -> list[dict[str, Any]]:
    """Reads one file as a list of dicts.

    Raises:
        FoundryError: See `read_table`; or a text is not UTF-8.
    """
    table = read_table(path, schema)
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except UnicodeDecodeError as error:
        column, row = _undecodable(table)
        raise FoundryError(
            f"{path}: row {row}, column '{column}' is not UTF-8: {error}.", hint="Write the table again as UTF-8."
        ) from error
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
    """Writes `rows` as ``{stem}-00000-of-00003.parquet`` files of about `shard_bytes` of raw data each.

    An empty input makes one empty shard, so that a reader always finds the schema.
    """
    with ShardWriter(folder, stem, schema, shard_bytes=shard_bytes, row_group_rows=row_group_rows) as shards:
        for row in rows:
            shards.add(row)
    return shards.paths


class ShardWriter:
    """Shards for rows that come one by one, see `write_shards`; they have their names when the block ends.

    Attributes:
        paths: The shards, when it is done.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        schema: pa.Schema,
        *,
        shard_bytes: int = SHARD_BYTES,
        row_group_rows: int = ROW_GROUP_ROWS,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths: list[Path] = []
        self._folder, self._stem, self._schema = folder, stem, schema
        self._shard_bytes, self._row_group_rows = shard_bytes, row_group_rows
        self._parts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._group: list[Row] = []
        self._size = 0

    def add(self, row: Row) -> None:
        """Takes a row; a row group at a time is in memory, whatever the shard's size."""
        self._group.append(row)
        # Counted in raw bytes, so that the rows of a shard do not depend on how well they compress.
        self._size += _size(row)
        if len(self._group) == self._row_group_rows or self._size >= self._shard_bytes:
            self._write_group()
        if self._size >= self._shard_bytes:
            self._close_shard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._group or not self._parts):
            self._write_group()
        self._close_shard()
        if kind is None:
            # The count in the names is known only now; until then no reader looks for the files' names.
            self.paths = [
                part.rename(self._folder / f"{self._stem}-{number:05d}-of-{len(self._parts):05d}.parquet")
                for number, part in enumerate(self._parts)
            ]

    def _write_group(self) -> None:
        if self._writer is None:
            self._parts.append(self._folder / f".{self._stem}-{len(self._parts):05d}.part")
            self._writer = pq.ParquetWriter(self._parts[-1], self._schema, compression="zstd", compression_level=3)
        self._writer.write_table(_to_table(self._group, self._schema, self._folder / self._stem))
        self._group.clear()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            _sync(self._parts[-1])
        self._writer, self._size = None, 0


def shard_paths(folder: Path, stem: str) -> list[Path]:
    """Returns the shards of `stem` in order; where a manifest speaks, those that it names.

    Raises:
        FoundryError: There is none, or one of the ``of`` count is missing; the folder is not as its manifest says.
    """
    paths = [folder / name for name in files_in(folder) if fnmatchcase(name, f"{stem}-*-of-*.parquet")]
    if not paths:
        raise FoundryError(f"No {stem} shards in {folder}", hint="Run the step that makes them, or `gme pipeline`.")
    expected = int(paths[0].stem.rpartition("-")[2])
    if len(paths) != expected:
        raise FoundryError(f"{folder}: {len(paths)} of {expected} {stem} shards are there.", hint="Run the step again.")
    return paths


def read_shards(folder: Path, stem: str, schema: pa.Schema | None = None) -> list[dict[str, Any]]:
    """Returns all rows of all shards of `stem`, in order."""
    return [row for path in shard_paths(folder, stem) for row in read_rows(path, schema)]


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _to_table(rows: Sequence[Row], schema: pa.Schema, path: Path) -> pa.Table:
    """Returns the rows as a table; raises as `write_table`."""
    try:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        table.validate()
    except (*_UNFIT, pa.ArrowException) as error:
        raise _misfit(path, rows, schema, error) from error
    if any(not field.nullable and table.column(field.name).null_count for field in schema):
        raise _misfit(path, rows, schema, None)
    return table


def _fitted(table: pa.Table, names: Sequence[str], schema: pa.Schema, path: Path) -> pa.Table:
    """Returns the table with the columns of `schema` cast as `read_table` says; `names` are the table's columns."""
    missing = sorted(set(schema.names) - set(names))
    if missing:
        raise FoundryError(f"{path}: column(s) missing: {', '.join(missing)}; found {', '.join(names)}.")
    for field in schema:
        if names.count(field.name) > 1:
            raise FoundryError(f"{path}: column '{field.name}' is there more than once.")
        column = table.column(field.name)
        if column.type != field.type:
            column = _cast(column, field, path)
            table = table.set_column(names.index(field.name), field, column)
        if not field.nullable and column.null_count:
            row = pc.index(pc.is_null(column), value=True).as_py()
            raise FoundryError(
                f"{path}: row {row}, column '{field.name}' is null, {field.type} expected ({column.null_count} such).",
                hint="Rows count from 0.",
            )
    return table


def _cast(column: pa.ChunkedArray, field: pa.Field, path: Path) -> pa.ChunkedArray:
    wrong = f"{path}: column '{field.name}' is {column.type}, {field.type} expected"
    if not _is_same_kind(column.type, field.type):
        raise FoundryError(f"{wrong}.", hint="Write the column with that type.")
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise FoundryError(f"{wrong}: {error}.") from error


def _is_same_kind(actual: pa.DataType, expected: pa.DataType) -> bool:
    """Tells whether a cast from one type to the other leaves every value what it is, or fails."""
    if pa.types.is_null(actual) or actual == expected:
        return True
    if pa.types.is_dictionary(actual):
        return _is_same_kind(actual.value_type, expected)
    if pa.types.is_struct(actual) and pa.types.is_struct(expected):
        fields = {field.name: field.type for field in actual}
        return set(fields) == {field.name for field in expected} and all(
            _is_same_kind(fields[field.name], field.type) for field in expected
        )
    # Every cast within these families keeps each value or raises.
    for kind in (_is_list, _is_text, _is_bytes, pa.types.is_integer, pa.types.is_floating):
        if kind(actual) and kind(expected):
            return kind is not _is_list or _is_same_kind(actual.value_type, expected.value_type)
    return False


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _undecodable(table: pa.Table) -> tuple[str, int]:
    """Returns the column and row of the first text that is not UTF-8."""
    for name in table.column_names:
        column = table.column(name)
        for row in range(len(column)):
            try:
                column[row].as_py()
            except UnicodeDecodeError:
                return name, row
    raise AssertionError("every text is UTF-8")


def _misfit(path: Path, rows: Sequence[Row], schema: pa.Schema, error: Exception | None) -> FoundryError:
    """Returns an error with the first value that does not fit its column, found by trying each value alone."""
    for number, row in enumerate(rows):
        for field in schema:
            value = row.get(field.name)
            try:
                reason = None if pa.array([value], field.type).null_count == 0 or field.nullable else "is null"
            except (*_UNFIT, pa.ArrowException) as misfit:
                reason = str(misfit)
            if reason:
                name = f" (id {row['id']!r})" if "id" in row else ""
                return FoundryError(f"{path}: row {number}{name}, column '{field.name}', {field.type}: {reason}.")
    return FoundryError(f"{path}: the rows do not fit its columns: {error}.")


def _size(value: object) -> int:
    """Estimates the bytes of a value with what is nested in it, since an example is nested texts."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict | Mapping):  # dict first: an isinstance of the abstract Mapping takes ten times as long
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 16
    # Most parts are texts or None; a recursive call for each would take most of the time.
    return sum([len(part) if type(part) is str else 16 if part is None else _size(part) for part in value])
