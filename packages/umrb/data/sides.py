"""The two sides of a task, queries and documents: rows by number, contents a window at a time.

A row's content has a digest; equal contents have equal digests in every task, whatever their ids. Knows no model, no
metric, and no place that data come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gme_data.images import Images
from gme_data.items import Item
from gme_data.tasks import Document, Query

Digests: TypeAlias = NDArray[np.bytes_]
"""[n] 16 bytes each."""
View: TypeAlias = Callable[[Item], Item]
"""What of an item an encoder sees."""
Row_co = TypeVar("Row_co", Query, Document, covariant=True)

DIGEST = np.dtype("S16")
WINDOW = 8192
"""Rows in memory at a time."""


class Window(NamedTuple):
    """Some rows of a side.

    Attributes:
        items: `parts` for each row, one after the other.
        images: Where the pictures of `items` are.
        parts: Items of a row; a row of several is the mean of their vectors.
    """

    items: list[Item]
    images: Images | None
    parts: int = 1


class Side(Protocol[Row_co]):
    """Queries by id, or documents by id, descending."""

    @property
    def ids(self) -> pa.Array:
        """[n] strings."""
        ...

    @property
    def subsets(self) -> list[str]:
        """[n] name of the subset that a query belongs to; of documents nothing."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Row_co: ...

    def __iter__(self) -> Iterator[Row_co]: ...

    @property
    def window_rows(self) -> int:
        """Rows that may be in memory at a time."""
        ...

    def window(self, rows: Sequence[int]) -> Window:
        """The contents of some rows."""
        ...

    def digests(self, view: View) -> Digests:
        """[n] digest of what `view` shows of each row."""
        ...


@dataclass(frozen=True, slots=True)
class InMemorySide(Generic[Row_co]):
    """Rows in memory, their pictures in a store."""

    rows: tuple[Row_co, ...]
    images: Images | None = None

    @property
    def ids(self) -> pa.Array:
        """See `Side`."""
        return pa.array([row.id for row in self.rows], pa.string())

    @property
    def subsets(self) -> list[str]:
        """See `Side`."""
        return [getattr(row, "subset", "") for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Row_co:
        return self.rows[row]

    def __iter__(self) -> Iterator[Row_co]:
        return iter(self.rows)

    @property
    def window_rows(self) -> int:
        """See `Side`; pictures are read one by one."""
        return WINDOW

    def window(self, rows: Sequence[int]) -> Window:
        """See `Side`."""
        return Window([self.rows[row].item for row in rows], self.images)

    def digests(self, view: View) -> Digests:
        """See `Side`."""
        return as_digests([digest([view(row.item)]) for row in self.rows])


def as_given(item: Item) -> Item:
    """The whole item."""
    return item


def text_only(item: Item) -> Item:
    """The text alone."""
    return Item(text=item.text or "")


def picture_only(item: Item) -> Item:
    """The picture alone; an item without one as it is."""
    return Item(image=item.image) if item.image is not None else item


def fused_text(item: Item) -> Item:
    """Of a fused item the text alone; others as they are."""
    return text_only(item) if item.text is not None else item


def digest(parts: Sequence[Item]) -> bytes:
    """16 bytes that name a content. A text of blanks alone is none."""
    found = hashlib.blake2b(digest_size=DIGEST.itemsize, usedforsecurity=False)
    for item in parts:
        text = (item.text if item.text and not item.text.isspace() else "").encode("utf-8", "surrogatepass")
        found.update(b"%d:%b|%b;" % (len(text), text, (item.image or "").encode()))
    return found.digest()


_EMPTY = digest([Item(text="")])


def as_digests(found: Sequence[bytes]) -> Digests:
    """Digests as an array."""
    return np.frombuffer(b"".join(found), DIGEST)


def blocks(total: int, size: int = WINDOW) -> Iterator[range]:
    """The rows 0..total in blocks."""
    return (range(start, min(start + size, total)) for start in range(0, total, size))


def is_empty(found: Digests) -> NDArray[np.int64]:
    """Rows of `found` that hold nothing, blanks apart."""
    nothing: Any = as_digests([_EMPTY])
    return np.flatnonzero(found == nothing)
