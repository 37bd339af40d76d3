"""Pictographs: emoji with their names, families, genders and skin tones.

They come from the package `emoji`. Flags of places are left out: they are pictures of `atlas.factbook.Place`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import emoji

from atlas.drawings import STYLES, find_svg

TONES = {
    0x1F3FB: "light",
    0x1F3FC: "medium-light",
    0x1F3FD: "medium",
    0x1F3FE: "medium-dark",
    0x1F3FF: "dark",
}
"""Skin tone by modifier code point (Fitzpatrick types 1-2 to 6)."""
BASE = "base"
"""The `variant` of a pictograph without a skin tone."""
_GENDER_OF_WORD = {
    "man": "man", "men": "man", "woman": "woman", "women": "woman", "person": "person", "people": "person",
}  # fmt: skip
_NOT_FAMILY = frozenset({*_GENDER_OF_WORD, "boy", "girl", "older", "facing", "right"})
_FULLY_QUALIFIED = emoji.STATUS["fully_qualified"]
_SELECTOR = "\ufe0f"


@dataclass(frozen=True, slots=True)
class Pictograph:
    """One emoji.

    Attributes:
        id: Code points in hex, joined by dashes, without variation selectors.
        symbol: The emoji itself.
        base_id: Id without the skin tone.
        family: Name without gender, age and direction; a family is in one split.
        name: English short name.
        aliases: Other English names.
        names: Short name by language code, English among them.
        variant: ``base`` or the skin tone.
        gender: ``man``, ``woman``, ``person`` or ``none``.
    """

    id: str
    symbol: str
    base_id: str
    family: str
    name: str
    aliases: tuple[str, ...]
    names: dict[str, str]
    variant: str
    gender: str


@cache
def read_pictographs() -> tuple[Pictograph, ...]:
    """Returns every fully qualified emoji that both styles draw, with at most one skin tone each, sorted by id."""
    emoji.config.load_language(emoji.LANGUAGES)  # the package loads English alone
    pictographs = [
        _describe(symbol, data)
        for symbol, data in emoji.EMOJI_DATA.items()
        if data["status"] == _FULLY_QUALIFIED
        and not all(0x1F1E6 <= ord(char) <= 0x1F1FF for char in symbol)  # two regional indicators are a place's flag
        and sum(ord(char) in TONES for char in symbol) <= 1
        and all(find_svg(style, symbol) for style in STYLES)
    ]
    return tuple(sorted(pictographs, key=lambda pictograph: pictograph.id))


def _describe(symbol: str, data: dict[str, str]) -> Pictograph:
    tone = next((TONES[ord(char)] for char in symbol if ord(char) in TONES), BASE)
    names = {language: _words(data[language]) for language in sorted(emoji.LANGUAGES) if language in data}
    toneless = "".join(char for char in symbol if ord(char) not in TONES)
    base_name = re.sub(r" (medium-light|medium-dark|light|medium|dark) skin tone", "", names["en"])
    words = base_name.lower().replace("woman and man", "people").split()
    return Pictograph(
        id=_id(symbol),
        symbol=symbol,
        base_id=_id(toneless),
        family=_family(words),
        name=names["en"],
        aliases=_aliases(data, names["en"]),
        names=names,
        variant=tone,
        gender=next((_GENDER_OF_WORD[word] for word in words[:1] if word in _GENDER_OF_WORD), "none"),
    )


def _family(words: list[str]) -> str:
    """Returns the words of a name that are not about gender, age or direction."""
    if words[0] == "family":  # all are one group, since some of their drawings are the same
        return "family"
    return " ".join(word for word in words if word not in _NOT_FAMILY) or "adult"


def _aliases(data: dict[str, str], name: str) -> tuple[str, ...]:
    """Returns the aliases that are words; ":+1:" and two-letter codes are shorthand for typists."""
    words = (_words(alias) for alias in data.get("alias", ()))
    return tuple(alias for alias in dict.fromkeys(words) if alias != name and re.fullmatch(r"[^\W\d].{2,}", alias))


def _words(short_name: str) -> str:
    return short_name.strip(":").replace("_", " ")


def _id(symbol: str) -> str:
    return "-".join(f"{ord(char):x}" for char in symbol if char != _SELECTOR)
