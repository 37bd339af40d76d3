"""The training set as training uses it: examples and items by number, read from the index on access.

Memory does not grow with the number of examples, since arrays and texts are mapped files. Knows the index; not batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gme_data.examples import Example
from gme_data.items import Item
from gme_training.data.example_index import EXAMPLES_FILE, Stratum, load_array, read_index_manifest

Ints = NDArray[np.int64]


class Rows:
    """The examples of some strata as one sequence, which takes no memory of its own.

    Args:
        order: All rows, ordered by stratum, int64 [n], mapped.
        stratum: The number of each row's stratum, int64 [n], mapped.
        strata: Pairs (number, stratum) of the strata in the sequence.
    """

    def __init__(self, order: Ints, stratum: Ints, strata: Sequence[tuple[int, Stratum]]) -> None:
        self._order, self._stratum = order, stratum
        self._numbers = [number for number, _ in strata]
        self._firsts = np.array([stratum.first for _, stratum in strata], dtype=np.int64)
        self._ends = np.cumsum([stratum.last - stratum.first for _, stratum in strata], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, positions: Ints) -> Ints:
        """Returns the rows at some positions of the sequence, int64 [k]."""
        span = np.searchsorted(self._ends, positions, side="right")
        before = np.concatenate([[0], self._ends[:-1]])
        return np.asarray(self._order[self._firsts[span] + positions - before[span]])

    def all(self) -> Ints:
        """Returns all rows, ascending."""
        return np.sort(self.at(np.arange(len(self))))

    def intersection(self, rows: Ints) -> Ints:
        """Returns those of `rows` that are in the sequence, in their order."""
        return rows[np.isin(self._stratum[rows], self._numbers)]


class Examples(Sequence[Example]):
    """Examples by their number, in the order of the data set."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Example]: ...
    def __getitem__(self, row: int | slice) -> Example | Sequence[Example]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        batch, position = self.locate(row)
        return Example.from_row(batch.slice(position, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Example]:
        return (Example.from_row(row) for batch in self._batches for row in batch.to_pylist())

    def locate(self, row: int) -> tuple[pa.RecordBatch, int]:
        """Returns the record batch that holds a row, and the row's position in it."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._batches[number], int(row - (self._ends[number] - self._batches[number].num_rows))

    def instruction(self, row: int) -> str | None:
        """Returns the instruction of an example, without reading its items."""
        batch, position = self.locate(row)
        instruction: str | None = batch.column("instruction")[position].as_py()
        return instruction


class Items(Sequence[Item]):
    """Distinct items by their number; each is read from the example in which it first occurs.

    Args:
        examples: The examples.
        starts: The position at which the items of each example begin, int64 [n + 1].
        firsts: The position of each item's first occurrence, int64 [items].
    """

    def __init__(self, examples: Examples, starts: Ints, firsts: Ints) -> None:
        self._examples, self._starts, self._firsts = examples, starts, firsts

    def __len__(self) -> int:
        return len(self._firsts)

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | Sequence[Item]:
        if isinstance(number, slice):
            return [self[item] for item in range(*number.indices(len(self)))]
        occurrence = int(self._firsts[number])
        row = int(np.searchsorted(self._starts, occurrence, side="right")) - 1
        batch, position = self._examples.locate(row)
        # The items of an example are its query, its positive, and its negatives, in this order.
        offset = occurrence - int(self._starts[row])
        if offset < 2:
            value = batch.column("query" if offset == 0 else "positive")[position]
        else:
            value = batch.column("negatives")[position][offset - 2]
        return Item(**value.as_py())

    def __iter__(self) -> Iterator[Item]:
        return (self[number] for number in range(len(self)))


class Catalog:
    """A training set, opened by its index.

    Args:
        folder: The folder of the index, from `ensure_index`.

    Attributes:
        examples: The examples, in the order of the data set.
        items: The distinct items.
        query: The item of each example's query, int64 [n].
        positive: The item of each example's positive, int64 [n].
        key: The number of each example's batch key, int64 [n].
        strata: All strata, ordered.
    """

    def __init__(self, folder: Path) -> None:
        self.strata = read_index_manifest(folder).strata
        self.examples = Examples(folder / EXAMPLES_FILE)
        self._starts, self._numbers = load_array(folder, "starts"), load_array(folder, "items")
        self.items = Items(self.examples, self._starts, load_array(folder, "firsts"))
        self.query, self.positive, self.key = (load_array(folder, name) for name in ("query", "positive", "key"))
        self._fact, self._stratum = load_array(folder, "fact"), load_array(folder, "stratum")
        self._by_stratum = load_array(folder, "by_stratum")
        self._sorted = {
            name: (load_array(folder, f"{name}_sorted"), load_array(folder, f"by_{name}"))
            for name in ("query", "fact", "key")
        }

    def sources(self) -> dict[str, set[str]]:
        """Returns the task types of each source."""
        task_types: dict[str, set[str]] = {}
        for stratum in self.strata:
            task_types.setdefault(stratum.source, set()).add(stratum.task_type)
        return task_types

    def rows(self, source: str, task_type: str | None = None, *, only_with_negatives: bool = False) -> Rows:
        """Returns the examples of a source; if asked, only those of one task type, or with hard negatives."""
        strata = [
            (number, stratum)
            for number, stratum in enumerate(self.strata)
            if stratum.source == source
            and task_type in (None, stratum.task_type)
            and (stratum.with_negatives or not only_with_negatives)
        ]
        return Rows(self._by_stratum, self._stratum, strata)

    def negatives(self, row: int) -> Ints:
        """Returns the items of an example's hard negatives."""
        return np.array(self._numbers[int(self._starts[row]) + 2 : int(self._starts[row + 1])])

    def rows_with_key(self, key: int) -> Ints:
        """Returns the rows of a batch key, ascending, mapped."""
        return self._equal("key", key)

    def false_negatives(self, row: int, *, mask_same_group: bool) -> frozenset[int]:
        """Returns the items that must not be negatives of example `row`; its own positive is among them.

        They are the known positives of the same query anywhere in the set, the query's own item, and, if
        `mask_same_group`, the positives of other examples of the same entity group and batch key: the same fact of a
        look-alike.
        """
        query = int(self.query[row])
        rows = [self._equal("query", query)]
        if mask_same_group:
            rows.append(self._equal("fact", int(self._fact[row])))
        return frozenset([query, *self.positive[np.concatenate(rows)].tolist()])

    def _equal(self, name: str, value: int) -> Ints:
        values, order = self._sorted[name]
        # Binary search in a mapped file: a lookup reads a few pages, whatever the number of examples.
        first, last = np.searchsorted(values, [value, value + 1])
        return order[first:last]
