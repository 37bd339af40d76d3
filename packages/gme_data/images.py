"""Pictures, stored once by the sha256 of their encoded bytes in parquet shards, and decoded within bounds.

Knows nothing of what a model does to a picture.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.parquet import UNREADABLE, shard_paths, write_shards
from gme_data.pixels import array_levels, before_decoding, rgb_on_white

MAX_PIXELS = 64 * 2**20
MAX_BYTES = 64 * 2**20
MAX_SIDE = 65_535
"""The longest side of a picture, which is that of JPEG; a PNG of 117 KB with 60 million rows takes 8 s to decode."""
MAX_READS = 2**16
"""Reads of a decoder per picture: a header of millions of empty parts would take minutes; 64 MB need some 20,000."""
ALLOWED_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ROW_GROUP_ROWS = 128
_CACHED_ROW_GROUPS = 64
_RERUN_HINT = "Delete its folder and run its step again."

Encoded: TypeAlias = bytes  # inside ImageRecord the name `bytes` is a field

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("bytes", pa.binary(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One stored picture. `id` is the sha256 hex of `bytes`; width and height in pixels."""

    id: str
    bytes: Encoded
    format: str
    width: int
    height: int
    source: str
    licence: str

    @classmethod
    def from_bytes(cls, data: Encoded, *, source: str, licence: str) -> ImageRecord:
        """Reads format and size from the header of `data`.

        Raises:
            FoundryError: `data` is no picture of an allowed format, or too large.
        """
        with open_image(data, source) as image:
            return cls(sha256_bytes(data), data, str(image.format), image.width, image.height, source, licence)


class _BoundedBytes(io.BytesIO):
    """Encoded bytes that raise an error after `MAX_READS` reads of a decoder, however small."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> Encoded:
        self._reads += 1
        if self._reads > MAX_READS:
            raise FoundryError(f"more than {MAX_READS} parts, of which pictures have some thousands")
        return super().read(size)


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Opens encoded bytes without decoding the pixels.

    Raises:
        FoundryError: Not a picture of an allowed format, or over `MAX_BYTES`, `MAX_PIXELS` or `MAX_SIDE`.
    """
    if len(data) > MAX_BYTES:
        raise FoundryError(f"{name}: {len(data)} bytes, more than the allowed {MAX_BYTES}.")
    try:
        with warnings.catch_warnings():
            # Pillow only warns between one and two times its own limit; ours is below it and is checked next.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(_BoundedBytes(data), formats=ALLOWED_FORMATS)
    except UnidentifiedImageError as error:  # its message is the address of the buffer
        raise FoundryError(f"{name}: not a readable picture ({_why_unreadable(data)}).") from error
    except Exception as error:  # as in `decoding`
        raise FoundryError(f"{name}: not a readable picture: {_reason(error)}") from error
    if image.format == "MPO":  # a JPEG with further views behind it, as phones write them
        image.format = "JPEG"
    _check_size(*image.size, name)
    return image


def decode_rgb(data: bytes, name: str = "image") -> Image.Image:
    """Decodes to RGB.

    Raises:
        FoundryError: See `open_image` and `to_rgb`.
    """
    return to_rgb(open_image(data, name), name)


def load_pixels(image: Image.Image, name: str = "image") -> None:
    """Decodes the pixels of a lazily opened picture now, in place; a second call does nothing.

    Raises:
        FoundryError: The picture is damaged, cut off, too large, empty, or its file is closed.
    """
    _check_size(*image.size, name)
    with decoding(name):
        # Pillow forgets the depth of the transparent colour when it decodes.
        before_decoding(image, name)
        image.load()


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Returns an opened picture as RGB, by the same rules whether it comes from a file or was made by a program.

    Transparency is laid on white, the ground that flags and pictographs are drawn for. 16 bits are narrowed to their
    high byte. Of Pillow's modes without an agreed white, ``I`` is read as 16 bits and ``F`` as 0 to 1, or as whole
    numbers up to 255, where the levels leave no doubt. Colour profiles and the EXIF orientation are not applied.

    Raises:
        FoundryError: As `load_pixels`; or the range of the levels can't be told, which names the mode.
    """
    load_pixels(image, name)
    with decoding(name):
        return rgb_on_white(image, name)


def array_to_rgb(array: NDArray[Any], name: str = "image") -> Image.Image:
    """Returns an array of pixels as RGB, by the rules of `to_rgb`.

    Args:
        array: [height, width] or [height, width, 1, 3 or 4]; bool, uint8, uint16, or floats from 0 to 1.
        name: For errors.

    Raises:
        FoundryError: Another shape, type or range, or too large.
    """
    if array.ndim >= 2:
        _check_size(array.shape[1], array.shape[0], name)
    return to_rgb(Image.fromarray(array_levels(array, name)), name)


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Reports every failure of a decoder as a damaged picture.

    Raises:
        FoundryError: For any exception but a `FoundryError`, which passes.
    """
    try:
        yield
    except FoundryError:
        raise
    # On damaged bytes a decoder may raise anything: besides the errors that it documents, Pillow was seen to raise
    # TypeError, struct.error, IndexError, KeyError, ZeroDivisionError and MemoryError. No list of them is complete.
    except Exception as error:
        raise FoundryError(f"{name}: the picture is damaged: {_reason(error)}") from error


def _check_size(width: int, height: int, name: str) -> None:
    if not width or not height:
        raise FoundryError(f"{name}: a picture of {width}x{height} pixels has nothing to see.")
    if width * height > MAX_PIXELS:
        raise FoundryError(f"{name}: {width}x{height} pixels, more than the allowed {MAX_PIXELS}.")
    if max(width, height) > MAX_SIDE:
        raise FoundryError(f"{name}: {width}x{height} pixels; a side may have {MAX_SIDE} at most.")


def _why_unreadable(data: bytes) -> str:
    """Returns the error of the decoder whose magic bytes `data` have; without any, the formats that are read."""
    for kind in ALLOWED_FORMATS:
        factory, accept = Image.OPEN[kind]
        if accept is None or accept(data[:16]) is not True:
            continue
        try:
            factory(_BoundedBytes(data), "")
        except Exception as error:  # as in `decoding`
            return f"a {kind}, but {_reason(error)}"
    return ", ".join(ALLOWED_FORMATS)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def encode_png(image: Image.Image) -> bytes:
    """Encodes a picture as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)  # level 9 takes five times as long and saves 6 % of the bytes
    return buffer.getvalue()


def write_images(folder: Path, records: Iterable[ImageRecord]) -> list[Path]:
    """Writes the shards ``images-*.parquet``, sorted by id, each id once."""
    # Sorted by id, so that equal pictures give equal bytes in whatever order they come.
    unique = {record.id: record for record in records}
    rows = (asdict(unique[id_]) for id_ in sorted(unique))
    return write_shards(folder, "images", rows, SCHEMA, row_group_rows=ROW_GROUP_ROWS)


class Images(Protocol):
    """A store of pictures by id, such as the shards of a step's output or a window of a data set."""

    def __len__(self) -> int: ...

    def __contains__(self, id_: object) -> bool: ...

    def read(self, id_: str) -> bytes:
        """Returns the encoded bytes of a picture.

        Raises:
            FoundryError: There is no picture of this id.
        """

    def size(self, id_: str) -> tuple[int, int]:
        """Returns the width and height in pixels. Raises as `read`."""

    def open(self, id_: str) -> Image.Image:
        """Returns the picture, its pixels not decoded yet. Raises as `read` and `open_image`."""

    def load(self, id_: str) -> Image.Image:
        """Returns the picture, decoded to RGB on white. Raises as `read` and `decode_rgb`."""


class ImageStore:
    """Reads pictures by id from one or more folders of ``images-*.parquet`` shards; see `Images`.

    In memory are 28 bytes a picture: a digest of its id, its position, its size. Bytes are read by row group, through a
    small cache. Threads may share one.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files: list[pq.ParquetFile] = []
        self._paths: list[Path] = []
        self._cache: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        digests: list[bytes] = []
        positions: list[NDArray[np.int32]] = [np.zeros((0, 5), np.int32)]
        for path in [path for folder in folders for path in shard_paths(folder, "images")]:
            for group, table in enumerate(self._opened(path)):
                digests += [_digest(id_) for id_ in table.column("id").to_pylist()]
                sizes = [table.column(name).to_numpy() for name in ("width", "height")]
                rows = np.arange(len(table))
                position = [np.full_like(rows, len(self._files) - 1), np.full_like(rows, group), rows]
                positions.append(np.stack([*position, *sizes], axis=1).astype(np.int32))
        # Sorted for a binary search; of a picture that is in two shards the first is taken.
        self._digests, firsts = np.unique(np.frombuffer(b"".join(digests), np.uint64), return_index=True)
        self._positions = np.concatenate(positions)[firsts]  # [n, 5]: file, row group, row, width, height

    def _opened(self, path: Path) -> list[pa.Table]:
        """Returns the ids and sizes of each row group."""
        try:
            file = pq.ParquetFile(path)
            groups = [
                file.read_row_group(group, columns=["id", "width", "height"]) for group in range(file.num_row_groups)
            ]
            if missing := {"id", "bytes", "width", "height"} - set(file.schema_arrow.names):
                raise FoundryError(f"No image shard: {path}: without {', '.join(sorted(missing))}.", hint=_RERUN_HINT)
        except UNREADABLE as error:
            raise FoundryError(f"Corrupt image shard: {path}: {error}", hint=_RERUN_HINT) from error
        self._files.append(file)
        self._paths.append(path)
        return groups

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self._find(id_) is not None

    def read(self, id_: str) -> bytes:
        """Returns the encoded bytes of a picture.

        Raises:
            FoundryError: The id is not in the store.
        """
        file, group, row, *_ = self._position(id_)
        with self._lock:  # threads share the cache
            return self._group(file, group)[row]

    def size(self, id_: str) -> tuple[int, int]:
        """Returns the width and height in pixels, without reading the picture. Raises as `read`."""
        *_, width, height = self._position(id_)
        return width, height

    def _position(self, id_: str) -> list[int]:
        index = self._find(id_)
        if index is None:
            raise FoundryError(f"No picture with id {id_} in the store.")
        position: list[int] = self._positions[index].tolist()
        return position

    def _find(self, id_: str) -> int | None:
        digest = np.frombuffer(_digest(id_), np.uint64)[0]
        at = int(np.searchsorted(self._digests, digest))
        return at if at < len(self._digests) and self._digests[at] == digest else None

    def load(self, id_: str) -> Image.Image:
        """Returns the picture, decoded to RGB on white. Raises as `read` and `decode_rgb`."""
        return decode_rgb(self.read(id_), id_)

    def open(self, id_: str) -> Image.Image:
        """Returns the picture, its pixels not decoded yet. Raises as `read` and `open_image`."""
        return open_image(self.read(id_), id_)

    def _group(self, file: int, group: int) -> list[bytes]:
        key = (file, group)
        if key not in self._cache:
            try:
                table = self._files[file].read_row_group(group, columns=["bytes"])
            except UNREADABLE as error:
                raise FoundryError(f"Corrupt image shard: {self._paths[file]}: {error}", hint=_RERUN_HINT) from error
            self._cache[key] = table.column("bytes").to_pylist()
            if len(self._cache) > _CACHED_ROW_GROUPS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


def _digest(id_: str) -> bytes:
    """Returns 8 bytes of a digest; among 10 million ids two share one with a probability of 3e-6."""
    return hashlib.blake2b(id_.encode(), digest_size=8, usedforsecurity=False).digest()
