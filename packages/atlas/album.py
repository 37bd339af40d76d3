"""The album stores every picture of Atlas once: drawn on demand, deduplicated by bytes, and kept across a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from atlas import licences
from atlas.drawings import rasterise
from gme_data.images import ImageRecord, decode_rgb, encode_png, write_images
from gme_data.parquet import read_rows

_SCRATCH_SHARD_ROWS = 512
"""New pictures after which a shard is written to the scratch folder."""


class Album:
    """Collects pictures by source; pictures with equal bytes are stored once.

    Args:
        size: Side of a rasterised drawing in pixels.
        scratch: Folder to which finished pictures are written in shards, so that a killed build does not draw them
            again; None writes none.
    """

    def __init__(self, size: int, scratch: Path | None = None) -> None:
        self._size, self._scratch = size, scratch
        self._records: dict[str, ImageRecord] = {}
        self._by_source: dict[str, str] = {}
        self._unsaved: list[ImageRecord] = []
        for path in sorted(scratch.glob("*/images-*.parquet")) if scratch else []:
            for row in read_rows(path):
                self._register(ImageRecord(**row))

    def draw(self, style: str, symbol: str) -> str:
        """Returns the image id of an emoji in a style. Raises as `rasterise`."""
        name = "-".join(f"{ord(char):x}" for char in symbol)
        return self._store(f"{style}:{name}", licences.BY_STYLE[style], lambda: rasterise(style, symbol, self._size))

    def add(self, source: str, licence: str, make: Callable[[], Image.Image]) -> str:
        """Returns the image id of a picture, drawn by `make` unless `source` is stored already.

        `source` is unique and decides the picture, together with the config of the build.
        """
        return self._store(source, licence, lambda: encode_png(make()))

    def open(self, id_: str) -> Image.Image:
        """Returns the picture as RGB on white."""
        record = self._records[id_]
        return decode_rgb(record.bytes, record.source)

    def licence(self, id_: str) -> str:
        """Returns the licence of a picture."""
        return self._records[id_].licence

    def records(self) -> list[ImageRecord]:
        """Returns all pictures, each once, in no particular order."""
        return list(self._records.values())

    def _store(self, source: str, licence: str, make: Callable[[], bytes]) -> str:
        if source not in self._by_source:
            record = ImageRecord.from_bytes(make(), source=source, licence=licence)
            self._register(record)
            self._save(record)
        return self._by_source[source]

    def _register(self, record: ImageRecord) -> None:
        self._by_source[record.source] = record.id
        stored = self._records.get(record.id, record)
        # Of several sources with equal bytes the first by name is kept, so that a resumed build, which meets them in
        # another order, writes the same bytes.
        self._records[record.id] = min(stored, record, key=lambda candidate: candidate.source)

    def _save(self, record: ImageRecord) -> None:
        self._unsaved.append(record)
        if self._scratch and len(self._unsaved) >= _SCRATCH_SHARD_ROWS:
            # `write_images` renames a shard into place when it is complete, so a torn one is never read.
            write_images(self._scratch / f"{len(list(self._scratch.glob('*'))):04d}", self._unsaved)
            self._unsaved = []
