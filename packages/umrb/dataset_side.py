"""A side of a task that lies in a Hugging Face data set: rows are read as they are needed, pictures stay encoded.

What a row says is what mteb's loader would hand to a model: title and text joined for documents, the columns that the
task's category names. Knows columns; not tasks, nor where the data set came from.
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
from umrb.sides import DIGEST, Digests, Row_co, View, Window, as_digests, as_given, blocks, digest
from umrb.video import frames_of

_PICTURED_WINDOW = 256
"""Rows with pictures in memory at a time: a page of a document may have two megabytes."""


class HeldImages:
    """The pictures of a window, by the digest of their bytes; see `Images`."""

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
    """See `Side`.

    Attributes:
        name: For errors.
        data: Columns ``id``, and ``text``, ``title``, ``image``, ``video`` as far as `modalities` says; pictures and
            videos are not decoded.
        modalities: Of ``text``, ``image``, ``video``: what an item is made of.
        make: ``(id, item) -> row``.
        descending: Whether rows stand by id descending, as documents do.
        frames: Of a video, spread evenly; one is the middle one.
        cache: File that keeps the digests of the rows; None keeps them in memory only.
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
        self.data = _undecoded(self.data.select_columns(["id", *_columns(self.data, self.modalities)]))
        ids = self._as_ids(self.data.select_columns("id").with_format("arrow")[:]["id"].combine_chunks())
        order = pc.sort_indices(ids, sort_keys=[("", "descending" if self.descending else "ascending")])
        self.ids, self._order = ids.take(order), order.to_numpy().astype(np.int64)

    def _as_ids(self, column: pa.Array) -> pa.Array:
        """The ids as text; a data set of millions is not taken through Python for it."""
        if pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            ids = pc.cast(column, pa.string())
            bad = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(ids), ""), fill_value=True)
            row = pc.index(bad, value=True).as_py()
            if row < 0:
                return ids
            raise FoundryError(f"{self.name}, row {row}: no id.")
        found = []
        for row, value in enumerate(column.to_pylist()):
            try:
                found.append(id_cell(value))
            except CellError as error:
                raise FoundryError(f"{self.name}, row {row}, column 'id': {error}.") from error
        return pa.array(found, pa.string())

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, row: int) -> Row_co:
        return self.make(self.ids[row].as_py(), self.window([row]).items[0])

    def __iter__(self) -> Iterator[Row_co]:
        for block in blocks(len(self), self.window_rows):
            items = self.window(block).items[:: self._parts]
            for row, item in zip(block, items, strict=True):
                yield self.make(self.ids[row].as_py(), item)

    @property
    def subsets(self) -> list[str]:
        """See `Side`: there are none."""
        return [""] * len(self)

    @property
    def window_rows(self) -> int:
        """See `Side`."""
        return _PICTURED_WINDOW if self.modalities & {"image", "video"} else 8192

    def window(self, rows: Sequence[int]) -> Window:
        """See `Side`."""
        return self._read(self._order[np.asarray(rows, dtype=np.int64)])

    def digests(self, view: View) -> Digests:
        """See `Side`. Those of whole items are computed once and kept."""
        if view is not as_given:
            return self._digest(view)
        if self._digests is None:
            self._digests = self._cached()
        return self._digests

    def _cached(self) -> Digests:
        if self.cache is None:
            return self._digest(as_given)
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        with try_lock(self.cache.with_suffix(".lock"), wait=True):  # of several processes one reads the data
            kept = load_digests(self.cache, len(self))
            if kept is None:
                kept = self._digest(as_given)
                buffer = io.BytesIO()
                np.save(buffer, kept, allow_pickle=False)
                atomic_write(self.cache, buffer.getvalue())
        return kept

    def _digest(self, view: View) -> Digests:
        """Read in the order in which the data set lies on disk, for speed."""
        found = np.empty(len(self), DIGEST)
        for block in blocks(len(self), self.window_rows):
            items = [view(item) for item in self._read(np.arange(block.start, block.stop)).items]
            starts = range(0, len(items), self._parts)
            found[block.start : block.stop] = as_digests([digest(items[at : at + self._parts]) for at in starts])
        return found[self._order]

    @property
    def _parts(self) -> int:
        return self.frames if "video" in self.modalities else 1

    def _read(self, places: NDArray[np.int64]) -> Window:
        try:
            batch = self.data[places.tolist()]
        except (UnicodeDecodeError, pa.ArrowException) as error:
            raise FoundryError(f"{self.name}: rows can't be read: {error}.") from error
        rows = places.tolist()
        texts = self._texts(batch, rows) if "text" in self.modalities else [None] * len(rows)
        if "video" in self.modalities:
            return self._frames(texts, batch["video"], rows)
        pictures: dict[str, bytes] = {}
        images: list[str | None] = [None] * len(rows)
        if "image" in self.modalities:
            images = [_keep(self._bytes(v, row), pictures) for v, row in zip(batch["image"], rows, strict=True)]
        return Window([_item(text, image) for text, image in zip(texts, images, strict=True)], HeldImages(pictures))

    def _texts(self, batch: Mapping[str, Any], rows: Sequence[int]) -> list[str]:
        """As mteb hands them to a model: of documents title and text joined, of queries the text as it is."""
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
        """Encoded bytes of a picture or video: in the table, or beside it; empty for none."""
        try:
            found = picture_cell(value)
            return Path(found).read_bytes() if isinstance(found, str) else found or b""
        except (CellError, OSError) as error:
            raise FoundryError(f"{self.name}, row {row}: no readable picture or video: {error}.") from error

    def _frames(self, texts: Sequence[str | None], videos: Sequence[Any], rows: Sequence[int]) -> Window:
        pictures: dict[str, bytes] = {}
        items = [
            _item(text, _keep(frame, pictures))
            for text, video, row in zip(texts, videos, rows, strict=True)
            for frame in frames_of(self._bytes(video, row), self.frames, f"{self.name}, row {row}")
        ]
        return Window(items, HeldImages(pictures), self.frames)


def load_digests(path: Path, rows: int | None = None) -> Digests | None:
    """None if there are none, or what is there is damaged, or of another number of rows."""
    try:
        found = np.array(open_npy(path))
    except (FileNotFoundError, FoundryError):
        return None
    return found if found.dtype == DIGEST and found.ndim == 1 and rows in (None, len(found)) else None


def _item(text: str | None, image: str | None) -> Item:
    """Whatever there is; an item of nothing is an empty text, which integrity finds."""
    return Item(text=text if text or image is None else None, image=image) if text or image else Item(text="")


def _columns(data: datasets.Dataset, modalities: frozenset[str]) -> list[str]:
    title = {"title"} & set(data.column_names) if "text" in modalities else set()
    return sorted(modalities | title)


def _undecoded(data: datasets.Dataset) -> datasets.Dataset:
    for name, kind in (("image", datasets.Image), ("video", datasets.Video)):
        if isinstance(data.features.get(name), kind):
            data = data.cast_column(name, kind(decode=False))
    return data


def _keep(picture: bytes, pictures: dict[str, bytes]) -> str | None:
    """Put a picture among others, and its name; None for no bytes."""
    if not picture:
        return None
    name = sha256_bytes(picture)
    pictures[name] = picture
    return name
