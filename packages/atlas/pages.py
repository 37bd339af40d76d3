"""Rendered pages: the name of a place, its flag, its map and two sections, as a page of a handbook.

The typeface comes with matplotlib and the layout engine is Pillow's basic one, so that a page has the same pixels on
every machine, whichever fonts and text shapers it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

_BANDS = {"Geography": "#2f6b4f", "People": "#7a4a2b", "Government": "#2c4a7c"}
"""Colour of the title band by the first section of the page."""
_MARGIN = 12
_BAND_HEIGHT = 44
_PICTURE = 96
"""Side of the flag and of the map in pixels."""
_COLOURS = 64
"""Colours of the palette of a page."""


@dataclass(frozen=True, slots=True)
class Block:
    """A section on a page: its heading and its lines, one per field."""

    heading: str
    lines: tuple[str, ...]


def render_page(
    title: str, pictures: Sequence[Image.Image], blocks: Sequence[Block], size: tuple[int, int]
) -> Image.Image:
    """Renders a page of `size` (width, height) pixels, in a palette.

    The type is the largest from 15 down to 8 pixels with which all lines fit on the page.
    """
    width, height = size
    page = Image.new("RGB", size, "#fbfaf6")
    draw = ImageDraw.Draw(page)
    colour = _BANDS.get(blocks[0].heading, "#444444")
    draw.rectangle((0, 0, width, _BAND_HEIGHT), fill=colour)
    draw.text((_MARGIN, _BAND_HEIGHT / 2), title, "white", _fit_title(title, width - 2 * _MARGIN), anchor="lm")
    for number, picture in enumerate(pictures):
        scaled = picture.resize((_PICTURE, _PICTURE), Image.Resampling.BICUBIC)
        page.paste(scaled, (_MARGIN + number * (_PICTURE + 2 * _MARGIN), _BAND_HEIGHT + _MARGIN // 2))
    top = _BAND_HEIGHT + _PICTURE + 2 * _MARGIN // 2
    _set_blocks(draw, blocks, (top, height - _MARGIN // 2), width - 2 * _MARGIN, colour)
    return page.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def _set_blocks(
    draw: ImageDraw.ImageDraw, blocks: Sequence[Block], rows: tuple[int, int], width: int, colour: str
) -> None:
    top, bottom = rows
    for size in range(15, 7, -1):
        lines = _layout(blocks, size, width)
        if top + sum(leading for _, _, leading in lines) <= bottom:
            break
    y = top
    for text, bold, leading in lines:
        draw.text((_MARGIN, y), text, colour if bold else "#1a1a1a", text_font(size + 2 * bold, bold=bold))
        y += leading


def _layout(blocks: Sequence[Block], size: int, width: int) -> list[tuple[str, bool, int]]:
    """Returns ``(text, bold, leading in pixels)`` of every line, wrapped to `width` pixels."""
    lines = []
    for block in blocks:
        lines.append((block.heading, True, size + 8))
        for line in block.lines:
            lines += [(part, False, size + 3) for part in wrap(line, text_font(size, bold=False), width)]
    return lines


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks a text between words into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _fit_title(title: str, width: int) -> ImageFont.FreeTypeFont:
    for size in range(26, 9, -1):
        font = text_font(size, bold=True)
        if font.getlength(title) <= width:
            break
    return font


@cache
def text_font(size: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    """Loads DejaVu Sans at `size` pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
