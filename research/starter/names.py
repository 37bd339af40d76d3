"""When two names are of the same thing: letters folded, words lightly lemmatised, order and style words left out.

Knows spelling alone; which names are held out is told in `heldout`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

Key = frozenset[str]
"""The words that count of one name."""

_STYLE = frozenset([
    "outline", "outlined", "fill", "filled", "bold", "duotone", "thin", "linear", "broken", "rounded", "sharp",
    "twotone", "alt", "variant", "remix", "negative", "icon", "symbol", "emoji", "regular", "flat", "color", "colour",
    "light", "solid", "line", "round", "o",
])  # fmt: skip
"""Words that tell how an icon is drawn, not what it shows."""
_FILLERS = frozenset(["a", "an", "the", "of", "with", "in", "on", "and", "at", "for", "to", "s"])
_NUMBERS = frozenset(["one", "two", "three", "four", "five", "six"])
_LOOSE = frozenset(["face", "button", "sign", "side", "front", "head"])
"""Words that a held-out name may come without: a "dog face" is a dog."""


@lru_cache(maxsize=200_000)
def words(name: str) -> tuple[str, ...]:
    """Words in order, folded and singular, without fillers and style words; all of them if nothing else is left.

    >>> words("Clinking-Beer_Mugs outline")
    ('clinking', 'beer', 'mug')
    """
    folded = unicodedata.normalize("NFKD", name.casefold())
    folded = "".join(char for char in folded if not unicodedata.combining(char))
    tokens = [_singular(token) for token in re.findall(r"[^\W_]+", folded)]
    kept = [token for token in tokens if token not in _FILLERS and token not in _STYLE]
    return tuple(kept or tokens)


def key(name: str) -> Key:
    """The words as a set: two names with one key name one thing."""
    return frozenset(words(name))


def keys(name: str) -> set[Key]:
    """The key, and the key of the words written as one ("basket-ball")."""
    parts = words(name)
    return {frozenset(parts), frozenset(["".join(parts)])} - {frozenset()}


def loose_keys(name: str) -> set[Key]:
    """`keys`, also of the name without words that add nothing ("dog face", "ATM sign")."""
    core = [word for word in words(name) if word not in _LOOSE]
    return keys(name) | (keys(" ".join(core)) if core else set())


def readable(icon: str) -> str:
    """An icon's name as people write it: spaces, no style, size or number of the variant.

    >>> readable("arrow-up-right-bold-24")
    'arrow up right'
    """
    parts = re.split(r"[-_\s]+", icon.casefold())
    while len(parts) > 1 and (parts[-1] in _STYLE or parts[-1] in _NUMBERS or parts[-1].isdigit()):
        parts.pop()
    return " ".join(parts)


def _singular(token: str) -> str:
    if len(token) > 4 and token.endswith("ies"):
        return token[:-3] + "y"
    if len(token) > 4 and token.endswith(("ches", "shes", "sses", "xes", "oes")):
        return token[:-2]
    if len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token
