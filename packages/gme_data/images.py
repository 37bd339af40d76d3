"""Pictures: kept once, by the sha256 of their encoded bytes, in parquet shards; decoded within bounds.

Knows nothing of what a model does to a picture.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.parquet import shard_paths, write_shards

MAX_PIXELS = 64 * 2**20
MAX_BYTES = 64 * 2**20
ALLOWED_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ROW_GROUP_ROWS = 128
_CACHED_ROW_GROUPS = 64

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
        """Read format and size from the header of `data`.

        Raises:
            FoundryError: `data` is no picture of an allowed format, or too large.
        """
        with open_image(data, source) as image:
            return cls(sha256_bytes(data), data, str(image.format), image.width, image.height, source, licence)


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Open encoded bytes without decoding the pixels.

    Raises:
        FoundryError: Not a picture of an allowed format, or over `MAX_BYTES` or `MAX_PIXELS`.
    """
    if len(data) > MAX_BYTES:
        raise FoundryError(f"{name}: {len(data)} bytes, more than the allowed {MAX_BYTES}.")
    try:
        with warnings.catch_warnings():
            # Pillow only warns between one and two times its own limit; ours is below it and is checked next.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
    except UnidentifiedImageError as error:  # its message is the address of the buffer
        raise FoundryError(f"{name}: not a readable picture ({', '.join(ALLOWED_FORMATS)}).") from error
    except (Image.DecompressionBombError, OSError, ValueError) as error:
        raise FoundryError(f"{name}: not a readable picture ({', '.join(ALLOWED_FORMATS)}): {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise FoundryError(f"{name}: {image.width}x{image.height} pixels, more than the allowed {MAX_PIXELS}.")
    return image


def decode_rgb(data: bytes, name: str = "image") -> Image.Image:
    """Decode to RGB.

    Raises:
        FoundryError: See `open_image` and `to_rgb`.
    """
    return to_rgb(open_image(data, name), name)


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """An opened picture as RGB; transparency is laid on white, the ground that flags and pictographs are drawn for.

    Raises:
        FoundryError: The picture is damaged or cut off.
    """
    try:
        image.load()
        if image.mode.startswith("I;16"):  # Pillow's own conversion cuts at 255 instead of scaling
            image = image.point(lambda value: value / 256).convert("L")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise FoundryError(f"{name}: the picture is damaged: {error}") from error


def write_images(folder: Path, records: Iterable[ImageRecord]) -> list[Path]:
    """Write the shards ``images-*.parquet``, sorted by id, each id once."""
    unique = {record.id: record for record in records}
    rows = (asdict(unique[id_]) for id_ in sorted(unique))
    return write_shards(folder, "images", rows, SCHEMA, row_group_rows=ROW_GROUP_ROWS)


class ImageStore:
    """Reads pictures by id from one or more folders of ``images-*.parquet`` shards.

    In memory are 28 bytes a picture: a digest of its id, its place, its size. Bytes come row group by row group through
    a small cache. Threads may share one.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files: list[pq.ParquetFile] = []
        self._cache: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        digests: list[bytes] = []
        places: list[NDArray[np.int32]] = [np.zeros((0, 5), np.int32)]
        for path in [path for folder in folders for path in shard_paths(folder, "images")]:
            for group, table in enumerate(self._opened(path)):
                digests += [_digest(id_) for id_ in table.column("id").to_pylist()]
                sizes = [table.column(name).to_numpy() for name in ("width", "height")]
                rows = np.arange(len(table))
                where = [np.full_like(rows, len(self._files) - 1), np.full_like(rows, group), rows]
                places.append(np.stack([*where, *sizes], axis=1).astype(np.int32))
        # Sorted, to be searched; of pictures that stand twice the first.
        self._digests, firsts = np.unique(np.frombuffer(b"".join(digests), np.uint64), return_index=True)
        self._places = np.concatenate(places)[firsts]  # [n, 5]: file, row group, row, width, height

    def _opened(self, path: Path) -> list[pa.Table]:
        """Ids and sizes of each row group."""
        try:
            file = pq.ParquetFile(path)
            groups = [
                file.read_row_group(group, columns=["id", "width", "height"]) for group in range(file.num_row_groups)
            ]
        except (pa.ArrowInvalid, OSError) as error:
            raise FoundryError(
                f"Corrupt image shard: {path}: {error}", hint="Delete its folder and run its step again."
            ) from error
        self._files.append(file)
        return groups

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self._find(id_) is not None

    def read(self, id_: str) -> bytes:
        """Encoded bytes of a picture.

        Raises:
            FoundryError: The id is not in the store.
        """
        file, group, row, *_ = self._place(id_)
        with self._lock:
            return self._group(file, group)[row]

    def size(self, id_: str) -> tuple[int, int]:
        """Width and height in pixels, without reading the picture. Raises as `read`."""
        *_, width, height = self._place(id_)
        return width, height

    def _place(self, id_: str) -> list[int]:
        found = self._find(id_)
        if found is None:
            raise FoundryError(f"No picture with id {id_} in the store.")
        place: list[int] = self._places[found].tolist()
        return place

    def _find(self, id_: str) -> int | None:
        digest = np.frombuffer(_digest(id_), np.uint64)[0]
        at = int(np.searchsorted(self._digests, digest))
        return at if at < len(self._digests) and self._digests[at] == digest else None

    def load(self, id_: str) -> Image.Image:
        """The picture, decoded to RGB on white. Raises as `read` and `decode_rgb`."""
        return decode_rgb(self.read(id_), id_)

    def open(self, id_: str) -> Image.Image:
        """The picture, its pixels not decoded yet. Raises as `read` and `open_image`."""
        return open_image(self.read(id_), id_)

    def _group(self, file: int, group: int) -> list[bytes]:
        key = (file, group)
        if key not in self._cache:
            self._cache[key] = self._files[file].read_row_group(group, columns=["bytes"]).column("bytes").to_pylist()
            if len(self._cache) > _CACHED_ROW_GROUPS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


def _digest(id_: str) -> bytes:
    """8 bytes; of 10 million ids two would be confused with a probability of 3e-6."""
    return hashlib.blake2b(id_.encode(), digest_size=8, usedforsecurity=False).digest()
