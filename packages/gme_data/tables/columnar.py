"""Parquet files and the Arrow files of `datasets` folders, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from gme_data.errors import FoundryError
from gme_data.parquet import UNREADABLE
from gme_data.structured import StructureError, read_json
from gme_data.tables.rows import Row, RowError

_BATCH_ROWS = 1024
DATASET_STATE, DATASET_SPLITS = "state.json", "dataset_dict.json"


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    filename: str


class _State(BaseModel):
    """The files of a `datasets` folder, in their order."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    data_files: tuple[_File, ...] = Field(alias="_data_files")


def parquet_columns(path: Path) -> tuple[str, ...]:
    """Names of the columns.

    Raises:
        FoundryError: The file is no Parquet, or names a column twice.
    """
    return _distinct(path, _open_parquet(path).schema_arrow.names)


def parquet_count(path: Path) -> int:
    """Returns the number of rows, from the footer. Raises as `parquet_columns`."""
    return int(_open_parquet(path).metadata.num_rows)


def parquet_rows(path: Path, name: str, columns: Sequence[str] | None) -> Iterator[Row | RowError]:
    """Yields the rows of a file.

    Args:
        path: The file.
        name: What rows call it.
        columns: Those to read; None reads all. Those that the file lacks are left out.

    Raises:
        FoundryError: The file is no Parquet, or damaged.
    """
    selected = [column for column in parquet_columns(path) if columns is None or column in columns]
    # An empty projection would lose the number of rows.
    file = _open_parquet(path)
    batches = file.iter_batches(_BATCH_ROWS, columns=selected if selected else None)
    read = 0
    for row in _rows_of_batches(batches, path, name, selected):
        read += 1
        yield row
    # The reader of batches raises no error for a column that ends early.
    if read != file.metadata.num_rows:
        raise FoundryError(
            f"{path}: damaged: {read} rows can be read of the {file.metadata.num_rows} that it should have.",
            hint="Is the file whole?",
        )


def arrow_columns(path: Path) -> tuple[str, ...]:
    """Names of the columns of an Arrow stream. Raises as `parquet_columns`."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            return _distinct(path, reader.schema.names)
    except UNREADABLE as error:
        raise FoundryError(f"{path}: not a readable Arrow file: {error}") from error


def arrow_count(path: Path) -> int:
    """Returns the number of rows. Raises as `parquet_columns`."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            return sum(len(batch) for batch in reader)
    except UNREADABLE as error:
        raise FoundryError(f"{path}: not a readable Arrow file: {error}") from error


def arrow_rows(path: Path, name: str, columns: Sequence[str] | None) -> Iterator[Row | RowError]:
    """Yields the rows of an Arrow stream. As `parquet_rows`."""
    selected = [column for column in arrow_columns(path) if columns is None or column in columns]
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        # A batch of a `datasets` file may have any number of rows.
        cut = (
            batch.select(selected).slice(start, _BATCH_ROWS)
            for batch in reader
            for start in range(0, len(batch), _BATCH_ROWS)
        )
        yield from _rows_of_batches(cut, path, name, selected)


def dataset_files(folder: Path) -> list[Path]:
    """Returns the Arrow files of a folder written by `datasets.Dataset.save_to_disk`, in the order of their rows.

    Raises:
        FoundryError: The folder holds several splits, or its `state.json` is damaged.
    """
    if (folder / DATASET_SPLITS).is_file():
        splits = sorted(path.parent.name for path in folder.glob(f"*/{DATASET_STATE}"))
        if len(splits) == 1:
            return dataset_files(folder / splits[0])
        raise FoundryError(
            f"{folder}: a datasets folder with the splits {', '.join(splits) or '(none)'}.",
            hint=f"Give the folder of one of them, such as {folder / (splits or ['train'])[0]}.",
        )
    state = folder / DATASET_STATE
    try:
        names = [entry.filename for entry in read_json(state, _State).data_files]
    except StructureError as error:
        raise FoundryError(f"{state}: damaged: {error.reason}", hint="Save the dataset again.") from error
    files = [folder / name for name in names]
    for file in files:
        if file.parent != folder or not file.is_file():
            raise FoundryError(
                f"{state} names {file.name}, which is not in the folder.", hint="Save the dataset again."
            )
    return files


def is_dataset(folder: Path) -> bool:
    """Tells whether a folder was written by `save_to_disk` of Hugging Face `datasets`."""
    return (folder / DATASET_SPLITS).is_file() or (
        (folder / DATASET_STATE).is_file() and (folder / "dataset_info.json").is_file()
    )


def _rows_of_batches(
    batches: Iterable[pa.RecordBatch], path: Path, name: str, columns: Sequence[str]
) -> Iterator[Row | RowError]:
    number = 0
    try:
        for batch in batches:
            for values in _python_rows(batch):
                if isinstance(values, str):
                    yield RowError(name, "row", number, "unreadable", values)
                else:
                    yield Row(name, "row", number, values if columns else {})
                number += 1
    except UNREADABLE as error:
        raise FoundryError(f"{path}, after row {number}: not readable: {error}", hint="Is the file whole?") from error


def _python_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """Yields the rows of a batch; a message for one that Python can't hold (invalid UTF-8, the year 10000)."""
    try:
        yield from batch.to_pylist()
        return
    except (UnicodeDecodeError, ValueError, OverflowError):
        pass  # because of some cell of the batch, so the rows are read one by one
    for row in range(len(batch)):
        try:
            yield from batch.slice(row, 1).to_pylist()
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            yield f"a cell can't be read: {error}"


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except UNREADABLE as error:
        raise FoundryError(f"{path}: not a readable Parquet file: {error}") from error


def _distinct(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FoundryError(f"{path}: the column {twice[0]!r} stands twice.", hint="Rename one of them.")
    return tuple(names)
