"""The two sides of a task, queries and documents: rows by number, contents a window at a time.

A row's content has a digest; equal contents have equal digests in every task, whatever their ids. Knows no model, no
metric, and no source of data.
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
"""[n] digests of 16 bytes each."""
View: TypeAlias = Callable[[Item], Item]
"""A function that reduces an item to what an encoder sees of it."""
Row_co = TypeVar("Row_co", Query, Document, covariant=True)

DIGEST = np.dtype("S16")
WINDOW = 8192
"""Rows that are in memory at a time."""


class Window(NamedTuple):
    """Some rows of a side.

    Attributes:
        items: `items_per_row` items for each row, row after row.
        images: Store of the items' pictures.
        items_per_row: Items of a row, such as frames of a video; the row's vector is the mean of theirs.
    """

    items: list[Item]
    images: Images | None
    items_per_row: int = 1


class Side(Protocol[Row_co]):
    """The queries of a task in ascending order of their ids, or its documents in descending order."""

    @property
    def ids(self) -> pa.Array:
        """[n] ids, as strings."""
        ...

    @property
    def subsets(self) -> list[str]:
        """[n] name of the subset that each query belongs to; empty for documents."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Row_co: ...

    def __iter__(self) -> Iterator[Row_co]: ...

    @property
    def window_rows(self) -> int:
        """How many rows may be in memory at a time."""
        ...

    def window(self, rows: Sequence[int]) -> Window:
        """Return the contents of some rows."""
        ...

    def digests(self, view: View) -> Digests:
        """Return the digest of each row under `view`, [n]."""
        ...


@dataclass(frozen=True, slots=True)
class InMemorySide(Generic[Row_co]):
    """A side whose rows are in memory, with their pictures in a store."""

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
        """See `Side`. Pictures take no memory, since the store reads them one by one."""
        return WINDOW

    def window(self, rows: Sequence[int]) -> Window:
        """See `Side`."""
        return Window([self.rows[row].item for row in rows], self.images)

    def digests(self, view: View) -> Digests:
        """See `Side`."""
        # A picture's id is the digest of its bytes, so no picture is read here.
        return as_digests([digest([view(row.item)]) for row in self.rows])


def unchanged(item: Item) -> Item:
    """Return the item as it is."""
    return item


def text_only(item: Item) -> Item:
    """Return the text alone."""
    return Item(text=item.text or "")


def picture_only(item: Item) -> Item:
    """Return the picture alone; an item without a picture as it is."""
    return Item(image=item.image) if item.image is not None else item


def fused_text(item: Item) -> Item:
    """Return the text of a fused item alone; an item without text as it is."""
    return text_only(item) if item.text is not None else item


def digest(items: Sequence[Item]) -> bytes:
    """Return the 16 bytes that name the content of a row's items. A text of blanks alone counts as no text."""
    state = hashlib.blake2b(digest_size=DIGEST.itemsize, usedforsecurity=False)
    for item in items:
        text = (item.text if item.text and not item.text.isspace() else "").encode("utf-8", "surrogatepass")
        # The length in front makes the encoding unambiguous: a text may hold the separators.
        state.update(b"%d:%b|%b;" % (len(text), text, (item.image or "").encode()))
    return state.digest()


_EMPTY = digest([Item(text="")])
"""Digest of an item with neither text nor picture."""


def as_digests(digests: Sequence[bytes]) -> Digests:
    """Join digests to an array [n]."""
    return np.frombuffer(b"".join(digests), DIGEST)


def blocks(total: int, size: int = WINDOW) -> Iterator[range]:
    """Iterate over the rows 0..total in blocks."""
    return (range(start, min(start + size, total)) for start in range(0, total, size))


def is_empty(digests: Digests) -> NDArray[np.int64]:
    """Return the rows of `digests` whose items hold neither text nor picture."""
    empty: Any = as_digests([_EMPTY])
    return np.flatnonzero(digests == empty)
