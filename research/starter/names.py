"""Keys of names: two names with one key name the same thing.

Letters are folded, words are reduced to the singular, and their order, fillers and words of style are ignored.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

Key = frozenset[str]
"""The words of a name that identify what it names."""

_STYLE = frozenset([
    "outline", "outlined", "fill", "filled", "bold", "duotone", "thin", "linear", "broken", "rounded", "sharp",
    "twotone", "alt", "variant", "remix", "negative", "icon", "symbol", "emoji", "regular", "flat", "color", "colour",
    "light", "solid", "line", "round", "o",
])  # fmt: skip
"""Words for how an icon is drawn, not for what it shows."""
_FILLERS = frozenset(["a", "an", "the", "of", "with", "in", "on", "and", "at", "for", "to", "s"])
_NUMBERS = frozenset(["one", "two", "three", "four", "five", "six"])
_LOOSE = frozenset(["face", "button", "sign", "side", "front", "head"])
"""Words that a held-out name may lack: a "dog face" is a dog."""


@lru_cache(maxsize=200_000)
def words(name: str) -> tuple[str, ...]:
    """Returns the words in order, folded and singular, without fillers and words of style, unless nothing remains.

    >>> words("Clinking-Beer_Mugs outline")
    ('clinking', 'beer', 'mug')
    """
    folded = unicodedata.normalize("NFKD", name.casefold())
    folded = "".join(char for char in folded if not unicodedata.combining(char))
    tokens = [_singular(token) for token in re.findall(r"[^\W_]+", folded)]
    content = [token for token in tokens if token not in _FILLERS and token not in _STYLE]
    return tuple(content or tokens)


def key(name: str) -> Key:
    """Returns the words as a set."""
    return frozenset(words(name))


def keys(name: str) -> set[Key]:
    """Returns the key, and the key of the words written as one word ("basket-ball")."""
    parts = words(name)
    return {frozenset(parts), frozenset(["".join(parts)])} - {frozenset()}


def loose_keys(name: str) -> set[Key]:
    """Returns `keys`, also of the name without words such as "face" and "sign" ("dog face", "ATM sign")."""
    core = [word for word in words(name) if word not in _LOOSE]
    return keys(name) | (keys(" ".join(core)) if core else set())


def readable(icon: str) -> str:
    """Returns the name of an icon with spaces, without words of style and without size or number of the variant.

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
