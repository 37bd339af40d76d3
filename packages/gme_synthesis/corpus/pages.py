"""A page that shows a passage, for text-to-document examples where the corpus brings no pages of its own.

Draws with the font that comes with Pillow, which has Latin letters only. Knows nothing of documents.
"""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from gme_data.images import ImageRecord

_WIDTH, _MARGIN, _TYPE, _LEADING, _LINES = 448, 20, 14, 19, 40
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def render_page(title: str, text: str, licence: str) -> ImageRecord | None:
    """A PNG of title and text, at most 40 lines of it; None if the font lacks letters of it."""
    if not all(ord(char) < 0x250 for char in title + text if char.isalpha()):
        return None
    lines = wrap(text, _WIDTH - 2 * _MARGIN)[:_LINES]
    page = Image.new("L", (_WIDTH, 2 * _MARGIN + _LEADING * (len(lines) + 2 * bool(title))), 255)
    draw = ImageDraw.Draw(page)
    top = _MARGIN
    if title:
        draw.text((_MARGIN, top), title[:48], fill=0, font=_font(_TYPE + 5))
        top += 2 * _LEADING
    for line in lines:
        draw.text((_MARGIN, top), line, fill=0, font=_font(_TYPE))
        top += _LEADING
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return ImageRecord.from_bytes(buffer.getvalue(), source="rendered page", licence=licence)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken between words."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _font(_TYPE).getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)
