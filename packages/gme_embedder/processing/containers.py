"""What callers hand over as items: one item, or a container of them, told apart before anything is embedded.

A list, an iterator, a column or a table has n items; a text, a picture or a dict is one. The difference is decided by
type, because whatever can be iterated would do as a list otherwise: a string would give its letters, a data frame the
names of its columns. Tables are recognised by their methods, so that none of their libraries is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from io import IOBase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_embedder.processing.inputs import FIELDS, EmbedderInput

Items: TypeAlias = Iterable[Any]
"""A list or tuple, an iterator, an array or column of texts, or a table with the columns ``text``, ``title`` and
``image``: `datasets.Dataset`, a data frame of pandas or polars, a table of pyarrow."""

_HINT = "Give one text, picture or dict, or a list, an iterator, or a table with columns text, title and image."
_TABLE_BATCH = 1024


def is_single(items: object) -> bool:
    """Tells whether this is one item, and not a container of them.

    Raises:
        FoundryError: A dict of data sets.
    """
    if isinstance(items, Mapping) and hasattr(items, "column_names"):
        raise FoundryError(
            f"Several data sets: {', '.join(map(str, items))}.",
            hint=f"Give one of them: data[{next(iter(items), '')!r}].",
        )
    return isinstance(items, str | Item | Mapping | Image.Image | bytes | Path)


def as_list(items: object) -> Sequence[EmbedderInput]:
    """Returns the items of a container, where a single item is refused.

    Raises:
        FoundryError: One item, or what is no container of items.
    """
    if is_single(items):
        raise FoundryError(f"Expected a list of items, found one {type(items).__name__}.", hint="Give [item].")
    return items if isinstance(items, list | tuple) else list(items_of(items))


def length_of(items: object) -> int | None:
    """Returns how many items a container has; None for one that is read to its end to be counted."""
    return len(items) if isinstance(items, Sized) else None


def items_of(items: object) -> Iterable[Any]:
    """Returns the items of a container in their order: rows of a table, values of a column, members of anything else.

    Of a table the columns ``text``, ``title`` and ``image`` are read; others, such as ids, are ignored.

    Raises:
        FoundryError: No container of items; a table with neither ``text`` nor ``image``, or with one of them twice.
    """
    if isinstance(items, list | tuple):
        return items
    if hasattr(items, "column_names") or hasattr(items, "columns"):
        return _rows(items)
    if isinstance(items, np.ndarray):
        if items.ndim != 1 or items.dtype.kind not in "OUT":
            raise FoundryError(
                f"An array of {items.dtype} {list(items.shape)} is no list of items.",
                hint='Give a list of texts, or for a picture {"image": Image.fromarray(array)}.',
            )
        return list(items)
    if hasattr(items, "to_pylist"):  # a column of pyarrow, whose members are not Python's
        return list(items.to_pylist())
    # A set has no order that vectors could be in; a file gives lines with their ends, or pieces of bytes.
    if not isinstance(items, Iterable) or isinstance(items, set | frozenset | IOBase | Tensor | bytearray | memoryview):
        raise FoundryError(f"Expected items to embed, found {type(items).__name__}.", hint=_HINT)
    return items


def _rows(table: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - a table of any library
    names = table.column_names if hasattr(table, "column_names") else list(table.columns)
    if names is None:  # a stream of data sets that does not know its columns yet
        return ({name: row[name] for name in _item_columns(list(row))} for row in table)
    columns = _item_columns(list(names))
    if hasattr(table, "select_columns"):  # datasets; without its format, which may make tensors of texts
        return iter(table.with_format(None).select_columns(columns))
    # Without the index and without names: columns may have any name, also one that is no identifier.
    if hasattr(table, "itertuples"):  # pandas
        return (dict(zip(columns, row, strict=True)) for row in table[columns].itertuples(index=False, name=None))
    if hasattr(table, "iter_rows"):  # polars
        rows: Iterator[Mapping[str, Any]] = table.select(columns).iter_rows(named=True)
        return rows
    if hasattr(table, "to_pylist"):  # pyarrow
        return _arrow_rows(table.select(columns))
    raise FoundryError(f"A table of the kind {type(table).__name__} can't be read.", hint=_HINT)


def _arrow_rows(table: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - a table of pyarrow
    for start in range(0, table.num_rows, _TABLE_BATCH):
        yield from table.slice(start, _TABLE_BATCH).to_pylist()


def _item_columns(names: Sequence[object]) -> list[str]:
    """Returns the columns that make items."""
    columns = [name for name in FIELDS if name in names]
    listed = ", ".join(map(str, names)) or "none"
    if not {"text", "image"} & set(columns):
        raise FoundryError(
            f"The table has neither a column text nor image; its columns: {listed}.",
            hint="Rename the column that holds the texts to text, or that of the pictures to image.",
        )
    if len(columns) < sum(name in FIELDS for name in names):
        raise FoundryError(f"The table has a column twice; its columns: {listed}.", hint="Drop one of them.")
    return columns
