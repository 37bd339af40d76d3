"""A side of a task in a Hugging Face data set, whose rows are read on demand and whose pictures stay encoded.

A row holds what mteb's loader would hand to a model: the columns that the task's category names, and for documents
title and text joined. Knows columns; not tasks, nor where the data set came from.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import datasets  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from gme_data.cells import CellError, id_cell, picture_cell, text_cell
from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.images import decode_rgb, open_image
from gme_data.items import Item
from gme_data.journal import atomic_write
from gme_data.locks import try_lock
from gme_embedder.vectors.npy import open_npy
from umrb.data.sides import DIGEST, Digests, Row_co, View, Window, as_digests, unchanged, blocks, digest
from umrb.data.video import frames_of

_PICTURE_WINDOW = 256
"""Rows with pictures that are in memory at a time; a page of a document may take two megabytes."""


class WindowImages:
    """The pictures of a window in memory, by the digest of their bytes; implements `Images`."""

    def __init__(self, pictures: Mapping[str, bytes]) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._pictures

    def read(self, id_: str) -> bytes:
        """See `Images`."""
        if id_ not in self._pictures:
            raise FoundryError(f"No picture with id {id_} in this window.")
        return self._pictures[id_]

    def open(self, id_: str) -> Image.Image:
        """See `Images`."""
        return open_image(self.read(id_), id_)

    def load(self, id_: str) -> Image.Image:
        """See `Images`."""
        return decode_rgb(self.read(id_), id_)

    def size(self, id_: str) -> tuple[int, int]:
        """See `Images`."""
        return self.open(id_).size


@dataclass(slots=True)
class DatasetSide(Generic[Row_co]):
    """A side whose rows are those of a Hugging Face data set; see `Side`.

    Attributes:
        name: Name of the side in errors.
        data: Has the columns ``id`` and those of `modalities`, and may have ``title``; pictures and videos are not
            decoded.
        modalities: Those of ``text``, ``image`` and ``video`` that items consist of.
        make: A function ``(id, item) -> row``.
        descending: Whether rows are in descending order of their ids, as documents are.
        frames: Frames of a video, spread evenly; a single frame is the middle one.
        cache: File that caches the digests of the rows; None keeps them in memory alone.
    """

    name: str
    data: datasets.Dataset
    modalities: frozenset[str]
    make: Callable[[str, Item], Row_co]
    descending: bool
    frames: int = 1
    cache: Path | None = None
    ids: pa.Array = field(init=False)
    _order: NDArray[np.int64] = field(init=False)
    _digests: Digests | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        missing = self.modalities - set(self.data.column_names)
        if missing or "id" not in self.data.column_names:
            raise FoundryError(
                f"{self.name}: column(s) missing: {', '.join(sorted(missing or {'id'}))}; "
                f"found {', '.join(self.data.column_names)}."
            )
        columns: set[str] = set(self.modalities)
        if "text" in columns and "title" in self.data.column_names:
            columns.add("title")
        self.data = _without_decoding(self.data.select_columns(["id", *sorted(columns)]))
        # Ids are read as a column of Arrow, without decoding pictures beside them.
        ids = self._as_ids(self.data.select_columns("id").with_format("arrow")[:]["id"].combine_chunks())
        # The rows stay where they are on disk; only their numbers are sorted.
        order = pc.sort_indices(ids, sort_keys=[("", "descending" if self.descending else "ascending")])
        self.ids, self._order = ids.take(order), order.to_numpy().astype(np.int64)

    def _as_ids(self, column: pa.Array) -> pa.Array:
        """Convert the ids to text, without a Python loop where their type allows it: data sets have millions of rows."""
        if pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            ids = pc.cast(column, pa.string())
            bad = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(ids), ""), fill_value=True)
            row = pc.index(bad, value=True).as_py()
            if row < 0:
                return ids
            raise FoundryError(f"{self.name}, row {row}: no id.")
        texts = []
        for row, value in enumerate(column.to_pylist()):
            try:
                texts.append(id_cell(value))
            except CellError as error:
                raise FoundryError(f"{self.name}, row {row}, column 'id': {error}.") from error
        return pa.array(texts, pa.string())

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, row: int) -> Row_co:
        return self.make(self.ids[row].as_py(), self.window([row]).items[0])

    def __iter__(self) -> Iterator[Row_co]:
        for block in blocks(len(self), self.window_rows):
            items = self.window(block).items[:: self._items_per_row]
            for row, item in zip(block, items, strict=True):
                yield self.make(self.ids[row].as_py(), item)

    @property
    def subsets(self) -> list[str]:
        """See `Side`; such tasks have no subsets."""
        return [""] * len(self)

    @property
    def window_rows(self) -> int:
        """See `Side`."""
        return _PICTURE_WINDOW if self.modalities & {"image", "video"} else 8192

    def window(self, rows: Sequence[int]) -> Window:
        """See `Side`."""
        return self._read(self._order[np.asarray(rows, dtype=np.int64)])

    def digests(self, view: View) -> Digests:
        """See `Side`. The digests of whole items are computed once and cached."""
        if view is not unchanged:
            return self._compute_digests(view)
        if self._digests is None:
            self._digests = self._load_or_compute()
        return self._digests

    def _load_or_compute(self) -> Digests:
        if self.cache is None:
            return self._compute_digests(unchanged)
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes one reads the data, and the others wait for its digests.
        with try_lock(self.cache.with_suffix(".lock"), wait=True):
            digests = load_digests(self.cache, len(self))
            if digests is None:
                digests = self._compute_digests(unchanged)
                buffer = io.BytesIO()
                np.save(buffer, digests, allow_pickle=False)
                atomic_write(self.cache, buffer.getvalue())
        return digests

    def _compute_digests(self, view: View) -> Digests:
        # Rows are read in their order on disk, for speed, and sorted at the end.
        in_disk_order = np.empty(len(self), DIGEST)
        size = self._items_per_row
        for block in blocks(len(self), self.window_rows):
            items = [view(item) for item in self._read(np.arange(block.start, block.stop)).items]
            digests = [digest(items[start : start + size]) for start in range(0, len(items), size)]
            in_disk_order[block.start : block.stop] = as_digests(digests)
        return in_disk_order[self._order]

    @property
    def _items_per_row(self) -> int:
        return self.frames if "video" in self.modalities else 1

    def _read(self, disk_rows: NDArray[np.int64]) -> Window:
        """Read the rows of the data set by their numbers in it."""
        rows = disk_rows.tolist()
        try:
            batch = self.data[rows]
        except (UnicodeDecodeError, pa.ArrowException) as error:
            raise FoundryError(f"{self.name}: rows can't be read: {error}.") from error
        texts = self._texts(batch, rows) if "text" in self.modalities else [None] * len(rows)
        if "video" in self.modalities:
            return self._frames(texts, batch["video"], rows)
        pictures: dict[str, bytes] = {}
        images: list[str | None] = [None] * len(rows)
        if "image" in self.modalities:
            encoded = [self._bytes(value, row) for value, row in zip(batch["image"], rows, strict=True)]
            images = [_add_picture(picture, pictures) for picture in encoded]
        return Window([_item(text, image) for text, image in zip(texts, images, strict=True)], WindowImages(pictures))

    def _texts(self, batch: Mapping[str, Any], rows: Sequence[int]) -> list[str]:
        """Return the texts as mteb hands them to a model: title and text of documents are joined."""
        texts = [self._text(value, row) for value, row in zip(batch["text"], rows, strict=True)]
        if not self.descending or "title" not in batch:
            return texts
        titles = [self._text(value, row) for value, row in zip(batch["title"], rows, strict=True)]
        return [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]

    def _text(self, value: object, row: int) -> str:
        try:
            return text_cell(value)
        except CellError as error:
            raise FoundryError(f"{self.name}, row {row}: {error}.") from error

    def _bytes(self, value: object, row: int) -> bytes:
        """Return the encoded bytes of a picture or video, from the table or a file beside it; empty for none."""
        try:
            picture = picture_cell(value)
            return Path(picture).read_bytes() if isinstance(picture, str) else picture or b""
        except (CellError, OSError) as error:
            raise FoundryError(f"{self.name}, row {row}: no readable picture or video: {error}.") from error

    def _frames(self, texts: Sequence[str | None], videos: Sequence[Any], rows: Sequence[int]) -> Window:
        pictures: dict[str, bytes] = {}
        items = [
            _item(text, _add_picture(frame, pictures))
            for text, video, row in zip(texts, videos, rows, strict=True)
            for frame in frames_of(self._bytes(video, row), self.frames, f"{self.name}, row {row}")
        ]
        return Window(items, WindowImages(pictures), self.frames)


def load_digests(path: Path, rows: int | None = None) -> Digests | None:
    """Read cached digests; None if there is no file, or if it is damaged or has another number of rows."""
    try:
        digests = np.array(open_npy(path))
    except (FileNotFoundError, FoundryError):
        return None
    is_usable = digests.dtype == DIGEST and digests.ndim == 1 and rows in (None, len(digests))
    return digests if is_usable else None


def _item(text: str | None, image: str | None) -> Item:
    """Make an item of what a row has. A row of nothing becomes an empty text, which is listed among the defects."""
    return Item(text=text if text or image is None else None, image=image) if text or image else Item(text="")


def _without_decoding(data: datasets.Dataset) -> datasets.Dataset:
    for name, kind in (("image", datasets.Image), ("video", datasets.Video)):
        if isinstance(data.features.get(name), kind):
            data = data.cast_column(name, kind(decode=False))
    return data


def _add_picture(picture: bytes, pictures: dict[str, bytes]) -> str | None:
    """Add a picture to `pictures` and return its name; None for no bytes."""
    if not picture:
        return None
    name = sha256_bytes(picture)
    pictures[name] = picture
    return name
