"""Pictures: kept once, by the sha256 of their encoded bytes, in parquet shards; decoded within bounds.

Knows nothing of what a model does to a picture.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
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

    Only the ids are held in memory; bytes come row group by row group through a small cache. Threads may share one.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files: list[pq.ParquetFile] = []
        self._places: dict[str, tuple[int, int, int]] = {}
        self._cache: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        for path in [path for folder in folders for path in shard_paths(folder, "images")]:
            self._index(path)

    def _index(self, path: Path) -> None:
        try:
            file = pq.ParquetFile(path)
            groups = [
                file.read_row_group(g, columns=["id"]).column("id").to_pylist() for g in range(file.num_row_groups)
            ]
        except (pa.ArrowInvalid, OSError) as error:
            raise FoundryError(
                f"Corrupt image shard: {path}: {error}", hint="Delete its folder and run its step again."
            ) from error
        self._files.append(file)
        for group, ids in enumerate(groups):
            for row, id_ in enumerate(ids):
                self._places.setdefault(id_, (len(self._files) - 1, group, row))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def read(self, id_: str) -> bytes:
        """Encoded bytes of a picture.

        Raises:
            FoundryError: The id is not in the store.
        """
        if id_ not in self._places:
            raise FoundryError(f"No picture with id {id_} in the store.")
        file, group, row = self._places[id_]
        with self._lock:
            return self._group(file, group)[row]

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
