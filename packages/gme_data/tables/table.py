"""A user's table: the files of a path, their columns, and their rows as one stream."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gme_data.digests import sha256_file, sha256_json
from gme_data.errors import FoundryError, did_you_mean
from gme_data.tables.columnar import (
    arrow_columns,
    arrow_count,
    arrow_rows,
    dataset_files,
    is_dataset,
    parquet_columns,
    parquet_count,
    parquet_rows,
)
from gme_data.tables.delimited import delimited_columns, delimited_rows
from gme_data.tables.jsonl import json_lines_rows
from gme_data.tables.pdf import COLUMNS as PDF_COLUMNS
from gme_data.tables.pdf import pdf_rows, require_reader
from gme_data.tables.rows import Row, RowError
from gme_data.verified import VerifiedFolder

__all__ = ["Row", "RowError", "Table", "TableFile", "count_by_suffix", "open_table"]

Format = Literal["parquet", "arrow", "jsonl", "delimited", "pdf"]
FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "delimited",
    ".tsv": "delimited",
}
"""Formats by suffix, whose case does not matter; text formats may have a ``.gz`` after it."""
_READ = "Parquet, JSON lines (.jsonl, .ndjson), CSV and TSV (also .gz) are read, and folders of `datasets`"
_INSTEAD = {
    ".xlsx": "Save the sheet as 'CSV UTF-8'.",
    ".xls": "Save the sheet as 'CSV UTF-8'.",
    ".ods": "Save the sheet as CSV in UTF-8.",
    ".json": "Write one object a line: `jq -c '.[]' FILE.json > FILE.jsonl`.",
    ".arrow": "Give the folder that `save_to_disk` wrote, or save it as Parquet.",
    ".feather": "Save it as Parquet.",
    ".zip": "Unpack it.",
    ".bz2": "Unpack it, or pack it as .gz.",
    ".xz": "Unpack it, or pack it as .gz.",
    ".zst": "Unpack it, or pack it as .gz.",
    ".pdf": "Passages of `corpus: {kind: files}` may be PDF files.",
    ".txt": "Name it .tsv or .csv if it is a table with a header.",
}


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a table.

    Attributes:
        path: Where it is.
        name: Its path below the table's folder; its own name where the table is one file.
        format: How it is read.
        encoding: Of text formats.
    """

    path: Path
    name: str
    format: Format
    encoding: str

    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns; None for JSON lines, of which each has names of its own.

        Raises:
            FoundryError: The file can't be read, or names a column twice.
        """
        if self.format == "parquet":
            return parquet_columns(self.path)
        if self.format == "arrow":
            return arrow_columns(self.path)
        if self.format == "pdf":
            return PDF_COLUMNS
        return delimited_columns(self.path, self.encoding) if self.format == "delimited" else None

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row | RowError]:
        """Returns the rows in order, and errors in place of those that can't be read.

        Args:
            columns: Names that are needed; formats that can leave out the others do. None needs all.

        Raises:
            FoundryError: The file as a whole can't be read on.
        """
        if self.format == "parquet":
            return parquet_rows(self.path, self.name, columns)
        if self.format == "arrow":
            return arrow_rows(self.path, self.name, columns)
        if self.format == "pdf":
            return pdf_rows(self.path, self.name, columns)
        if self.format == "delimited":
            return delimited_rows(self.path, self.name, columns, self.encoding)
        return json_lines_rows(self.path, self.name, self.encoding)


@dataclass(frozen=True, slots=True)
class Table:
    """Files that are read as one table.

    Attributes:
        path: The file or folder.
        files: In the order of their paths below the folder.
        passed_over: Names of files in the folder that are no tables, hidden files apart.
    """

    path: Path
    files: tuple[TableFile, ...]
    passed_over: tuple[str, ...]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row | RowError]:
        """Yields the rows of all files; see `TableFile.rows`."""
        for file in self.files:
            yield from file.rows(columns)

    def count(self) -> int | None:
        """Returns the number of rows where the formats know it without being read through; None elsewhere."""
        counters = {"parquet": parquet_count, "arrow": arrow_count}
        if any(file.format not in counters for file in self.files):
            return None
        return sum(counters[file.format](file.path) for file in self.files)

    def digest(self) -> str:
        """Returns the sha256 over the paths below the folder and the contents of all files."""
        return sha256_json([[file.name, sha256_file(file.path)] for file in self.files])

    def require_columns(self, names: Iterable[str], hint: str) -> None:
        """Checks that every file has the columns. Of JSON lines, some line must have each.

        Args:
            names: The columns.
            hint: What to do about one that is missing.

        Raises:
            FoundryError: A file lacks one; suggests one that it has.
        """
        names = list(names)  # it is read once for each file
        for file in self.files:
            present = file.columns()
            columns = set(present) if present is not None else _names_until(file, set(names))
            for name in names:
                if name not in columns:
                    near = did_you_mean(name, columns)
                    listed = ", ".join(present if present is not None else sorted(columns)) or "none"
                    raise FoundryError(f"{file.path}: no column {name!r}.{near} It has {listed}.", hint=hint)


def count_by_suffix(names: Iterable[str]) -> str:
    """Returns the files by suffix with the first of each, for people: ``2 .png (a.png), 1 .xlsx (b.xlsx)``."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for name in names:
        suffix = Path(name).suffix.lower() or "no suffix"
        counts[suffix] += 1
        first.setdefault(suffix, name)
    return ", ".join(f"{count} {suffix} ({first[suffix]})" for suffix, count in counts.most_common())


def open_table(path: Path, encoding: str = "utf-8", *, pages: bool = False) -> Table:
    """Finds the files of a table: the file itself, all tables below a folder, or those of a `datasets` folder.

    Args:
        path: File or folder.
        encoding: Of text formats, as Python names it.
        pages: Whether a PDF is a table too, of its pages.

    Raises:
        FoundryError: Nothing is there, nothing there is a table, it lies in an output that is not as its manifest says,
            or the encoding is not known.
    """
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise FoundryError(f"Unknown encoding {encoding!r}.", hint="Such as utf-8, cp1252, latin-1, utf-16.") from error
    # A table may be part of an output, whose files must match its manifest.
    VerifiedFolder.containing(path)
    if path.is_dir():
        if is_dataset(path):
            files = tuple(TableFile(file, file.name, "arrow", encoding) for file in dataset_files(path))
            return Table(path, files, ())
        return _open_folder(path, encoding, pages=pages)
    if not path.is_file():
        near = did_you_mean(path.name, (other.name for other in path.parent.glob("*"))) if path.parent.is_dir() else ""
        raise FoundryError(f"No such file: {path}.{near}")
    format_ = _format_of(path, pages=pages)
    if format_ == "pdf":
        require_reader(path)
    if format_ is None:
        raise FoundryError(f"{path}: not a table that is read. {_READ}.", hint=_INSTEAD.get(path.suffix.lower()))
    return Table(path, (TableFile(path, path.name, format_, encoding),), ())


def _open_folder(folder: Path, encoding: str, *, pages: bool) -> Table:
    files: list[TableFile] = []
    passed_over: list[str] = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        format_ = _format_of(path, pages=pages)
        if format_ == "pdf":
            require_reader(path)
        if format_ is None:
            passed_over.append(relative.as_posix())
        else:
            files.append(TableFile(path, relative.as_posix(), format_, encoding))
    table = Table(folder, tuple(files), tuple(passed_over))
    if not files:
        others = f" There are {count_by_suffix(passed_over)}." if passed_over else " The folder is empty."
        raise FoundryError(f"{folder}: no table in this folder. {_READ}.{others}")
    return table


def _format_of(path: Path, *, pages: bool) -> Format | None:
    name = path.name.lower()
    if pages and name.endswith(".pdf"):
        return "pdf"
    packed = name.endswith(".gz")
    format_ = FORMATS.get(Path(name.removesuffix(".gz")).suffix)
    return None if packed and format_ == "parquet" else format_


def _names_until(file: TableFile, required: set[str]) -> set[str]:
    """Returns names that the lines of a file have; it is read until all `required` ones were seen."""
    names: set[str] = set()
    for row in file.rows():
        if isinstance(row, Row):
            names |= row.values.keys()
            if required <= names:
                break
    return names
