"""What a suite is: a table, what it must look like, and what must hold in it. Plain data; knows no Great Expectations.

A suite can't be vacuous by construction: it declares its columns, its row count and which columns are never null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True, slots=True)
class Expect:
    """One expectation: the name of a class of ``great_expectations.expectations``, its arguments, and why it is asked.

    `why` is shown to the user when it fails.
    """

    type: str
    arguments: dict[str, Any]
    why: str

    @property
    def column(self) -> str | None:
        """The column it is about; None if it is about the table."""
        name = self.arguments.get("column")
        return str(name) if name is not None else None


@dataclass(frozen=True, slots=True)
class Suite:
    """A table and what must hold in it.

    Attributes:
        name: Parts joined by dots, e.g. ``test.place-question-t2t.queries``.
        frame: The rows, one column for each thing that is expected of.
        rows: Fewest and most rows allowed.
        required: Columns in which no value may be missing.
        expects: What else must hold.
    """

    name: str
    frame: pd.DataFrame
    rows: tuple[int, int | None]
    required: tuple[str, ...]
    expects: tuple[Expect, ...]

    def declared(self) -> tuple[Expect, ...]:
        """All expectations: row count, columns and not-null first, then the suite's own."""
        low, high = self.rows
        columns = sorted({*self.required, *(e.column for e in self.expects if e.column)})
        return (
            Expect("ExpectTableRowCountToBeBetween", {"min_value": low, "max_value": high}, "size of the table"),
            *(Expect("ExpectColumnToExist", {"column": name}, "schema") for name in columns),
            *(Expect("ExpectColumnValuesToNotBeNull", {"column": name}, "no value missing") for name in self.required),
            *self.expects,
        )


def unique(column: str, why: str = "each once") -> Expect:
    """No value twice."""
    return Expect("ExpectColumnValuesToBeUnique", {"column": column}, why)


def one_of(column: str, values: Sequence[str], why: str) -> Expect:
    """Every value among `values`."""
    return Expect("ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}, why)


def covers(column: str, values: Sequence[str], why: str) -> Expect:
    """Every one of `values` occurs."""
    return Expect("ExpectColumnDistinctValuesToContainSet", {"column": column, "value_set": list(values)}, why)


def holds(column: str, why: str) -> Expect:
    """A yes/no column is yes in every row."""
    return Expect("ExpectColumnValuesToBeInSet", {"column": column, "value_set": [True]}, why)


def between(column: str, low: float | None, high: float | None, why: str) -> Expect:
    """Every value in ``[low, high]``."""
    return Expect("ExpectColumnValuesToBeBetween", {"column": column, "min_value": low, "max_value": high}, why)


def lengths(column: str, low: int, high: int, why: str) -> Expect:
    """Every text has between `low` and `high` characters; missing ones are not judged."""
    return Expect("ExpectColumnValueLengthsToBeBetween", {"column": column, "min_value": low, "max_value": high}, why)
