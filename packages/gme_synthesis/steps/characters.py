"""Invisible characters by what they do: some spell words and stay, some end words and become a space, some go."""

from __future__ import annotations

import re
import unicodedata

_ZERO_WIDTH_SPACE = 0x200B
_SPELL_WORDS = frozenset(
    [
        *(0x200C, 0x200D),  # joiners: Persian, Hindi, families of emoji
        0x180E,  # the vowel separator of Mongolian
        *range(0x600, 0x606),  # signs over numbers, of Arabic and Syriac and Kaithi: they are visible
        *(0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD),
        *range(0x13430, 0x13460),  # how hieroglyphs stand to each other
        *range(0x1BCA0, 0x1BCA4),  # of Duployan shorthand
        *range(0x1D173, 0x1D17B),  # of musical notation
    ]
)
"""Characters of the category Cf that a text is not the same without."""
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f|([\U000e0000-\U000e007f]+)")
"""Tags spell the flags of Scotland and Wales after a black flag; anywhere else they are a hidden text."""


class _Treatment(dict[int, int | str | None]):
    """What `str.translate` does with each character; filled as characters are met."""

    def __missing__(self, code: int) -> int | str | None:
        self[code] = treatment = _treatment(code)
        return treatment


def _treatment(code: int) -> int | str | None:
    category = unicodedata.category(chr(code))
    if code == _ZERO_WIDTH_SPACE or category in ("Cc", "Co"):  # private use: the icons of a font that is not here
        return " "
    if category == "Cf" and code not in _SPELL_WORDS and not 0xE0000 <= code <= 0xE007F:
        return None  # soft hyphen, word joiner, byte order mark, marks of direction, annotations
    return code


_TREATMENTS = _Treatment()


def readable(text: str) -> str:
    """`text` as a reader sees it, composed (NFC).

    Soft hyphens, word joiners, byte order marks, marks of direction and other invisible controls are removed: they
    stand inside of words. Joiners and what else spells words stays. Control characters, private ones and the
    zero-width space become a space. Halves of surrogate pairs are joined; lone ones become U+FFFD.
    """
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not text.isascii():
        text = _FLAG.sub(lambda match: "" if match[1] else match[0], text)
    return unicodedata.normalize("NFC", text.translate(_TREATMENTS))
