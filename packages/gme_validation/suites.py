"""Suites as plain data: a table, its schema, and the expectations that must hold in it.

No suite passes vacuously, since each declares its columns, its row count and the columns without missing values.
Great Expectations is imported by `gme_validation.runner` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True, slots=True)
class Expectation:
    """An expectation: the name of a class of ``great_expectations.expectations``, its arguments, and the reason for it.

    The user sees `why` when it fails.
    """

    type: str
    arguments: dict[str, Any]
    why: str

    @property
    def column(self) -> str | None:
        """The column that is checked; None if the table as such is."""
        name = self.arguments.get("column")
        return str(name) if name is not None else None


@dataclass(frozen=True, slots=True)
class TableSuite:
    """A table and the expectations that must hold in it.

    Attributes:
        name: Parts joined by dots, e.g. ``test.place-question-t2t.queries``.
        frame: The rows. Checks that no expectation can express are columns of booleans, see `holds`.
        rows: Least and greatest number of rows; None is no limit.
        required: Columns without missing values.
        expectations: Further expectations.
    """

    name: str
    frame: pd.DataFrame
    rows: tuple[int, int | None]
    required: tuple[str, ...]
    expectations: tuple[Expectation, ...]

    def declared(self) -> tuple[Expectation, ...]:
        """Returns all expectations: row count, columns and missing values first, then the further ones."""
        low, high = self.rows
        columns = sorted({*self.required, *(e.column for e in self.expectations if e.column)})
        return (
            Expectation("ExpectTableRowCountToBeBetween", {"min_value": low, "max_value": high}, "size of the table"),
            *(Expectation("ExpectColumnToExist", {"column": name}, "schema") for name in columns),
            *(
                Expectation("ExpectColumnValuesToNotBeNull", {"column": name}, "no value missing")
                for name in self.required
            ),
            *self.expectations,
        )


def unique(column: str, why: str = "each once") -> Expectation:
    """Expects no value twice."""
    return Expectation("ExpectColumnValuesToBeUnique", {"column": column}, why)


def one_of(column: str, values: Sequence[str], why: str) -> Expectation:
    """Expects every value to be one of `values`."""
    return Expectation("ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}, why)


def covers(column: str, values: Sequence[str], why: str) -> Expectation:
    """Expects every one of `values` to occur."""
    return Expectation("ExpectColumnDistinctValuesToContainSet", {"column": column, "value_set": list(values)}, why)


def holds(column: str, why: str) -> Expectation:
    """Expects a column of booleans to be true in every row."""
    return Expectation("ExpectColumnValuesToBeInSet", {"column": column, "value_set": [True]}, why)


def between(column: str, low: float | None, high: float | None, why: str) -> Expectation:
    """Expects every value in ``[low, high]``."""
    return Expectation("ExpectColumnValuesToBeBetween", {"column": column, "min_value": low, "max_value": high}, why)


def lengths(column: str, low: int, high: int, why: str) -> Expectation:
    """Expects every text to have between `low` and `high` characters; missing texts are skipped."""
    return Expectation(
        "ExpectColumnValueLengthsToBeBetween", {"column": column, "min_value": low, "max_value": high}, why
    )
