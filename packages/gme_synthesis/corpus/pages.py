"""A page that shows a passage, for text-to-document examples where the corpus has no pages.

Pages are drawn with the font that comes with Pillow, which has Latin letters only.
"""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

from gme_data.images import ImageRecord, encode_png

_WIDTH, _MARGIN, _FONT_SIZE, _LINE_HEIGHT = 448, 20, 14, 19
"""The geometry of a page, in pixels."""
_MAX_LINES = 40
_LAST_LATIN = 0x24F
"""The last character of the Unicode block Latin Extended-B."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def render_page(title: str, text: str, licence: str) -> ImageRecord | None:
    """Renders title and text as a PNG, at most 40 lines of it; returns None if the font lacks letters of them."""
    if not all(ord(char) <= _LAST_LATIN for char in title + text if char.isalpha()):
        return None
    lines = wrap(text, _WIDTH - 2 * _MARGIN)[:_MAX_LINES]
    # Grey, since a page has no colours.
    page = Image.new("L", (_WIDTH, 2 * _MARGIN + _LINE_HEIGHT * (len(lines) + 2 * bool(title))), 255)
    draw = ImageDraw.Draw(page)
    top = _MARGIN
    if title:
        draw.text((_MARGIN, top), title[:48], fill=0, font=_font(_FONT_SIZE + 5))
        top += 2 * _LINE_HEIGHT
    for line in lines:
        draw.text((_MARGIN, top), line, fill=0, font=_font(_FONT_SIZE))
        top += _LINE_HEIGHT
    return ImageRecord.from_bytes(encode_png(page), source="rendered page", licence=licence)


def wrap(text: str, width: int) -> list[str]:
    """Returns lines of at most `width` pixels, broken between words; a longer word is a line of its own."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _font(_FONT_SIZE).getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)
