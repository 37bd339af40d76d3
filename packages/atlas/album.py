"""The album: every picture of Atlas once, drawn on demand and remembered across a crash.

Knows bytes, sources and licences. Knows nothing of what is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from atlas.drawings import LICENCES, rasterise
from gme_data.images import ImageRecord, decode_rgb, write_images
from gme_data.parquet import read_rows

_REMEMBER_EVERY = 512


class Album:
    """Collects pictures by source; equal bytes are kept once.

    Args:
        size: Side of a rasterised drawing in pixels.
        scratch: Where finished pictures are written now and then, so that a killed build does not draw them again;
            None to forget them.
    """

    def __init__(self, size: int, scratch: Path | None = None) -> None:
        self._size, self._scratch = size, scratch
        self._records: dict[str, ImageRecord] = {}
        self._by_source: dict[str, str] = {}
        self._fresh: list[ImageRecord] = []
        for path in sorted(scratch.glob("*/images-*.parquet")) if scratch else []:
            for row in read_rows(path):
                self._remember(ImageRecord(**row))

    def draw(self, style: str, symbol: str) -> str:
        """Image id of an emoji in a style. Raises as `rasterise`."""
        name = "-".join(f"{ord(char):x}" for char in symbol)
        return self._keep(f"{style}:{name}", LICENCES[style], lambda: rasterise(style, symbol, self._size))

    def add(self, source: str, licence: str, make: Callable[[], Image.Image]) -> str:
        """Image id of a picture that is drawn here; `source` is unique and decides it, with the build's config."""
        return self._keep(source, licence, lambda: _png(make()))

    def open(self, id_: str) -> Image.Image:
        """The picture in RGB on white."""
        record = self._records[id_]
        return decode_rgb(record.bytes, record.source)

    def licence(self, id_: str) -> str:
        """Licence of a picture."""
        return self._records[id_].licence

    def records(self) -> list[ImageRecord]:
        """All pictures, each once, in no particular order."""
        return list(self._records.values())

    def _keep(self, source: str, licence: str, make: Callable[[], bytes]) -> str:
        if source not in self._by_source:
            record = ImageRecord.from_bytes(make(), source=source, licence=licence)
            self._remember(record)
            self._save(record)
        return self._by_source[source]

    def _remember(self, record: ImageRecord) -> None:
        self._by_source[record.source] = record.id
        known = self._records.get(record.id, record)
        # Of several sources with equal bytes the first by name is kept, in whichever order they came.
        self._records[record.id] = min(known, record, key=lambda candidate: candidate.source)

    def _save(self, record: ImageRecord) -> None:
        self._fresh.append(record)
        if self._scratch and len(self._fresh) >= _REMEMBER_EVERY:
            # A shard gets its name when it is whole, so a torn one is never read.
            write_images(self._scratch / f"{len(list(self._scratch.glob('*'))):04d}", self._fresh)
            self._fresh = []


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)  # level 9 takes five times as long for 6 % fewer bytes
    return buffer.getvalue()
