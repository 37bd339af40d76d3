"""Normalises invisible characters: what spells words stays, what ends words becomes a space, the rest goes."""

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
"""Characters of the Unicode category Cf whose removal would change the text that a reader sees."""
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f|([\U000e0000-\U000e007f]+)")
"""Tags spell the flags of Scotland and Wales after a black flag; anywhere else they hide a text from readers."""


class _TranslationTable(dict[int, int | str | None]):
    """A table for `str.translate`, filled on demand, since texts have few of Unicode's million code points."""

    def __missing__(self, code: int) -> int | str | None:
        self[code] = replacement = self._replacement(code)
        return replacement

    @staticmethod
    def _replacement(code: int) -> int | str | None:
        category = unicodedata.category(chr(code))
        # Characters of private use are the icons of some font, which is unknown.
        if code == _ZERO_WIDTH_SPACE or category in ("Cc", "Co"):
            return " "
        if category == "Cf" and code not in _SPELL_WORDS and not 0xE0000 <= code <= 0xE007F:
            return None  # soft hyphen, word joiner, byte order mark, marks of direction, annotations
        return code


_TRANSLATIONS = _TranslationTable()


def readable(text: str) -> str:
    """Returns `text` as a reader sees it, composed (NFC).

    Soft hyphens, word joiners, byte order marks, marks of direction and other invisible controls are removed, since
    they stand inside of words. Joiners and other characters that spell words stay. Control characters, characters of
    private use and the zero-width space become a space. Halves of surrogate pairs are joined; lone ones become U+FFFD.
    """
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not text.isascii():
        text = _FLAG.sub(lambda match: "" if match[1] else match[0], text)
    return unicodedata.normalize("NFC", text.translate(_TRANSLATIONS))
