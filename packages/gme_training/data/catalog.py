"""The training set as training sees it: examples and items by number, read from the index as they are asked for.

Memory does not grow with the number of examples: arrays and texts are mapped files. Knows the index; not batches.
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
from gme_training.data.example_index import ROWS, Stratum, load_array, read_facts

Ints = NDArray[np.int64]


class Rows:
    """The examples of some strata as if they stood one after the other; takes no memory of its own.

    Args:
        order: int64 [n], all rows by stratum, mapped.
        stratum: int64 [n], the number of each row's stratum, mapped.
        strata: (number, stratum) of those that are meant.
    """

    def __init__(self, order: Ints, stratum: Ints, strata: Sequence[tuple[int, Stratum]]) -> None:
        self._order, self._stratum = order, stratum
        self._numbers = [number for number, _ in strata]
        self._firsts = np.array([one.first for _, one in strata], dtype=np.int64)
        self._ends = np.cumsum([one.last - one.first for _, one in strata], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, places: Ints) -> Ints:
        """The rows at some places, int64 [k]."""
        span = np.searchsorted(self._ends, places, side="right")
        before = np.concatenate([[0], self._ends[:-1]])
        return np.asarray(self._order[self._firsts[span] + places - before[span]])

    def all(self) -> Ints:
        """All of them, ascending."""
        return np.sort(self.at(np.arange(len(self))))

    def among(self, rows: Ints) -> Ints:
        """Those of some rows that are meant."""
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
            return [self[one] for one in range(*row.indices(len(self)))]
        batch, place = self.place(row)
        return Example.from_row(batch.slice(place, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Example]:
        return (Example.from_row(row) for batch in self._batches for row in batch.to_pylist())

    def place(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The record batch that holds a row, and where in it."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._batches[number], int(row - (self._ends[number] - self._batches[number].num_rows))

    def instruction(self, row: int) -> str | None:
        """The instruction of an example."""
        batch, place = self.place(row)
        said: str | None = batch.column("instruction")[place].as_py()
        return said


class Items(Sequence[Item]):
    """Distinct items by their number: each is read where it first occurs, as the query of an example or beside it."""

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
            return [self[one] for one in range(*number.indices(len(self)))]
        occurrence = int(self._firsts[number])
        row = int(np.searchsorted(self._starts, occurrence, side="right")) - 1
        batch, place = self._examples.place(row)
        slot = occurrence - int(self._starts[row])
        found = batch.column("query" if slot == 0 else "positive")[place] if slot < 2 else None
        return Item(**(found if found is not None else batch.column("negatives")[place][slot - 2]).as_py())

    def __iter__(self) -> Iterator[Item]:
        return (self[number] for number in range(len(self)))


class Catalog:
    """An index, opened.

    Args:
        folder: What `index.ensure_index` left.

    Attributes:
        examples: In the order of the data set.
        items: Distinct items.
        query: int64 [n], item of each example's query.
        positive: int64 [n], item of its positive.
        key: int64 [n], number of its batch key.
        strata: All there are, ordered.
    """

    def __init__(self, folder: Path) -> None:
        self.strata = read_facts(folder).strata
        self.examples = Examples(folder / ROWS)
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
        """The task types of each source."""
        found: dict[str, set[str]] = {}
        for stratum in self.strata:
            found.setdefault(stratum.source, set()).add(stratum.task_type)
        return found

    def rows(self, source: str, task_type: str | None = None, *, only_with_negatives: bool = False) -> Rows:
        """Examples of a source; of one task type, or only those that have hard negatives, where asked for."""
        meant = [
            (number, one)
            for number, one in enumerate(self.strata)
            if one.source == source
            and task_type in (None, one.task_type)
            and (one.with_negatives or not only_with_negatives)
        ]
        return Rows(self._by_stratum, self._stratum, meant)

    def negatives(self, row: int) -> Ints:
        """Items of an example's hard negatives."""
        return np.array(self._numbers[int(self._starts[row]) + 2 : int(self._starts[row + 1])])

    def with_key(self, key: int) -> Ints:
        """Rows of a batch key, ascending, mapped."""
        return self._equal("key", key)

    def false_negatives(self, row: int, *, mask_same_group: bool) -> frozenset[int]:
        """Items that must not be negatives of example `row`; its own positive is among them.

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
        first, last = np.searchsorted(values, [value, value + 1])
        return order[first:last]
