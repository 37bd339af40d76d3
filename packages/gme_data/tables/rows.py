"""What the reader of every format yields: rows, and rows that could not be read, each with its location."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Unit = Literal["line", "row", "page"]
"""Text files count lines from 1, as editors do; columnar files count rows from 0, as data frames do; PDF counts pages
from 1, as viewers do, and 0 is the whole file."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        file: The file's path below the table's folder; its name where the table is one file.
        unit: What `number` counts.
        number: Where the row stands in its file.
        values: The cells by the file's own column names; a column that a JSON line lacks is absent.
    """

    file: str
    unit: Unit
    number: int
    values: dict[str, Any]

    @property
    def location(self) -> str:
        """Where the row is, for people: ``passages.csv, line 17``."""
        return f"{self.file}, {self.unit} {self.number}"


class RowError(NamedTuple):
    """A row that could not be read.

    Attributes:
        file: As in `Row`.
        unit: As in `Row`.
        number: As in `Row`.
        reason: For counting: ``not-json``, ``wrong-shape``, ``unclosed-quote``, ``bad-unicode`` or ``unreadable``.
        message: What is wrong, without the location.
        text: The beginning of the row as it stands in the file, where it is text.
    """

    file: str
    unit: Unit
    number: int
    reason: str
    message: str
    text: str = ""

    @property
    def location(self) -> str:
        """As in `Row`."""
        return f"{self.file}, {self.unit} {self.number}"
