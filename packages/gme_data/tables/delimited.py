"""CSV and TSV, strictly: a row has the fields of its header, or is a `RowError` that costs no other row.

CSV is quoted as RFC 4180 says; a quote that is not closed would swallow the rows up to the next one, so a record that
turns out wrong gives back all its lines but the first. TSV has no quoting, as the files of MS MARCO, DPR and BEIR have
none: a quotation mark there is a character like any other.
"""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.tables.rows import Row, RowError
from gme_data.tables.textfile import Lines

_MAX_RECORD_LINES = 10_000
"""A quoted field may hold line ends; one with more lines than this counts as not closed."""
_OTHER_DELIMITERS = (";", "\t", "|")
_EXCERPT = 200


def delimited_columns(path: Path, encoding: str) -> tuple[str, ...]:
    """Names of the columns, from the header.

    Raises:
        FoundryError: The file is empty, can't be read or decoded, or its header is broken or names a column twice.
    """
    with Lines(path, encoding) as lines:
        return _read_header(path, lines)[0]


def delimited_rows(path: Path, name: str, columns: Sequence[str] | None, encoding: str) -> Iterator[Row | RowError]:
    """Yields the rows of a file; every value is a text. Lines without any character are no rows.

    Args:
        path: The file.
        name: What rows call it.
        columns: Those to hand over; None hands over all.
        encoding: Of the text.

    Raises:
        FoundryError: As `delimited_columns`.
    """
    with Lines(path, encoding) as lines:
        header, delimiter = _read_header(path, lines)
        selected = [(index, column) for index, column in enumerate(header) if columns is None or column in columns]
        records = _Records(lines, delimiter, quoted=not _is_tsv(path), fields=len(header))
        for number, record in records:
            if isinstance(record, list):
                yield Row(name, "line", number, {column: record[index] for index, column in selected})
            else:
                yield record._replace(file=name)


def _is_tsv(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".tsv")


def _read_header(path: Path, lines: Lines) -> tuple[tuple[str, ...], str]:
    """Returns the column names and the delimiter: that of the suffix, or another one if a CSV's header has no comma."""
    first = next((line for _, line in lines if line.strip()), None)
    if first is None:
        raise FoundryError(f"{path}: the file is empty.", hint="Its first line names the columns.")
    text = first.rstrip("\r\n")
    delimiter = "\t" if _is_tsv(path) else ","
    if delimiter not in text and not _is_tsv(path):
        delimiter = next((other for other in _OTHER_DELIMITERS if other in text), delimiter)
    try:
        names = text.split("\t") if _is_tsv(path) else next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise FoundryError(
            f"{path}: the header can't be read: {error}.", hint="Its first line names the columns; quotes end in it."
        ) from error
    header = tuple(name.strip() for name in names)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise FoundryError(f"{path}: the header names the column {twice[0]!r} twice.", hint="Rename one of them.")
    return header, delimiter


class _Records:
    """Iterates over records, each with the number of its first line."""

    def __init__(self, lines: Lines, delimiter: str, *, quoted: bool, fields: int) -> None:
        self._lines, self._delimiter, self._quoted, self._fields = lines, delimiter, quoted, fields
        self._returned: deque[tuple[int, str]] = deque()
        """Lines that a broken record gave back, to be read again."""
        self._record: list[tuple[int, str]] = []
        """Lines of the record at hand."""

    def __iter__(self) -> Iterator[tuple[int, list[str] | RowError]]:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 KiB refuses long passages
        if not self._quoted:
            for number, line in self._lines:
                text = line.rstrip("\r\n")
                if text:
                    yield number, self._checked(number, text.split(self._delimiter), text)
            return
        reader = csv.reader(self._feed(), delimiter=self._delimiter, strict=True)
        while True:
            self._record = []
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._broken(str(error))
                continue
            if not fields:
                continue
            number, text = self._record[0]
            record = self._checked(number, fields, text)
            if isinstance(record, RowError) and len(self._record) > 1:
                yield self._broken("a quoted field that does not end in its row")
            else:
                yield number, record

    def _feed(self) -> Iterator[str]:
        """Yields the lines for the reader of CSV, which takes as many as a record needs."""
        while True:
            numbered = self._returned.popleft() if self._returned else next(iter(self._lines), None)
            if numbered is None:
                if not self._record:
                    return
                # At the end of the file the reader would accept an open quote. An error instead lets the lines be given
                # back, and this generator stays alive to yield them again.
                yield _UNCLOSED
                continue
            self._record.append(numbered)
            yield numbered[1] if len(self._record) <= _MAX_RECORD_LINES else _UNCLOSED

    def _broken(self, what: str) -> tuple[int, RowError]:
        """Refuses the first line of the record and gives back the others, to be read again."""
        number, text = self._record[0]
        self._returned.extendleft(reversed(self._record[1:]))
        reason = "unclosed-quote" if len(self._record) > 1 else "wrong-shape"
        return number, RowError("", "line", number, reason, what, text[:_EXCERPT].rstrip("\r\n"))

    def _checked(self, number: int, fields: list[str], text: str) -> list[str] | RowError:
        if len(fields) == self._fields:
            return fields
        message = f"{len(fields)} fields where the header has {self._fields}"
        return RowError("", "line", number, "wrong-shape", message, text[:_EXCERPT].rstrip("\r\n"))


_UNCLOSED = '"\x00'
"""A line that ends an open quoted field in a way that the strict reader refuses."""
