"""Symbols of mathematics and technique with their names, as pairs that a pipeline reads.

The names are those of the Unicode standard, which Python ships; the drawings are made with the typefaces that
matplotlib ships: DejaVu Sans, Serif and Mono, and STIX General. Nothing is downloaded. Run it once:

    python examples/symbols/prepare.py
"""

from __future__ import annotations

import argparse
import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from emoji import is_emoji
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

BLOCKS = {
    "Letterlike Symbols": (0x2100, 0x214F),
    "Number Forms": (0x2150, 0x218F),
    "Arrows": (0x2190, 0x21FF),
    "Mathematical Operators": (0x2200, 0x22FF),
    "Miscellaneous Technical": (0x2300, 0x23FF),
    "Box Drawing": (0x2500, 0x257F),
    "Block Elements": (0x2580, 0x259F),
    "Geometric Shapes": (0x25A0, 0x25FF),
    "Miscellaneous Mathematical Symbols-A": (0x27C0, 0x27EF),
    "Supplemental Arrows-A": (0x27F0, 0x27FF),
    "Supplemental Arrows-B": (0x2900, 0x297F),
    "Miscellaneous Mathematical Symbols-B": (0x2980, 0x29FF),
    "Supplemental Mathematical Operators": (0x2A00, 0x2AFF),
    "Miscellaneous Symbols and Arrows": (0x2B00, 0x2BFF),
}
"""First and last code point of the blocks whose characters are taken."""
TYPEFACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")
SIDE = 112
"""Of a drawing, in pixels."""
_MARGIN = 10
_SIZE = 80
"""Of the type, in pixels; a symbol that is wider or higher than the drawing is set smaller."""
SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("query_picture", pa.binary()),
        ("positive", pa.string()),
        ("positive_picture", pa.list_(pa.binary())),
        ("entity", pa.string()),
        ("instruction", pa.string()),
    ]
)


class Typeface:
    """One typeface, and which characters it has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with TTFont(path) as font:
            self.code_points = frozenset(font.getBestCmap())

    def draw(self, char: str) -> bytes:
        """PNG of a character, black on white, in the middle; empty if there is nothing to see."""
        image, room = Image.new("L", (SIDE, SIDE), 255), SIDE - 2 * _MARGIN
        left, top, right, bottom = self._font(_SIZE).getbbox(char)
        if right <= left or bottom <= top:
            return b""
        font = self._font(int(_SIZE * min(1, room / (right - left), room / (bottom - top))))
        left, top, right, bottom = font.getbbox(char)
        corner = ((SIDE - right - left) / 2, (SIDE - bottom - top) / 2)
        ImageDraw.Draw(image).text(corner, char, font=font, fill=0)
        written = io.BytesIO()
        image.save(written, "PNG")
        return written.getvalue() if np.asarray(image).min() < 128 else b""

    def _font(self, size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(str(self._path), size)


def symbols() -> Iterator[tuple[str, list[bytes]]]:
    """Name and different drawings of every character that is no emoji and is drawn like none before it."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    typefaces = [Typeface(folder / f"{name}.ttf") for name in TYPEFACES]
    seen: set[bytes] = set()
    for first, last in BLOCKS.values():
        for code_point in range(first, last + 1):
            char = chr(code_point)
            name = unicodedata.name(char, "").lower()
            drawn = [face.draw(char) for face in typefaces if code_point in face.code_points]
            drawings = [drawing for drawing in dict.fromkeys(drawn) if drawing]
            if name and drawings and not is_emoji(char) and seen.isdisjoint(drawings):
                seen.update(drawings)
                yield name, drawings


def rows(name: str, drawings: list[bytes]) -> Iterator[dict[str, object]]:
    """What is asked of one symbol: its drawings by its name, its name by each drawing, the others by the first."""
    about = {"entity": name}
    yield about | {"query": name, "positive_picture": drawings, "instruction": "Find the symbol of this name."}
    for drawing in drawings:
        yield about | {"query_picture": drawing, "positive": name, "instruction": "Name this symbol."}
    first, *others = drawings
    if others:
        other_typeface = "Find this symbol in another typeface."
        yield about | {"query_picture": first, "positive_picture": others, "instruction": other_typeface}


def main() -> None:
    """Write ``pairs.parquet`` beside this file, or where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("pairs.parquet"))
    out = parser.parse_args().out
    named = list(symbols())
    table = pa.Table.from_pylist([row for name, drawings in named for row in rows(name, drawings)], SCHEMA)
    pq.write_table(table, out)
    print(f"{len(named)} symbols in {sum(len(drawings) for _, drawings in named)} drawings: {len(table)} rows in {out}")


if __name__ == "__main__":
    main()
