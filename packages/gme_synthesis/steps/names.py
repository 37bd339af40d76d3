"""Names in texts: replaced by a reference, and looked for again.

"What is the capital of Norway?" -> "What is the capital of this country?". Neither the name nor an alias may survive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHORT = 3
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Thai, Lao, Burmese, Khmer, kana and the characters of China."""


def replace_names(question: str, names: Sequence[str], reference: str, *, before_possessive: str) -> str:
    """`question` with every mention of any of `names` (longest first, with or without "the") replaced.

    Example:
        >>> replace_names("Who leads the Gambia?", ["Gambia"], "this country", before_possessive="this country")
        'Who leads this country?'
    """
    pattern = re.compile(rf"(?:\b[Tt]he\s+)?(?:{'|'.join(map(_as_word, names))})('s|\u2019s)?")

    def put(match: re.Match[str]) -> str:
        said = before_possessive if match.group(1) else reference
        if match.start() == 0:
            said = said[0].upper() + said[1:]
        return said + (match.group(1) or "")

    return pattern.sub(put, question)


def surviving_name(text: str, names: Sequence[str], *, plural: bool = False) -> str | None:
    """A name that still stands in `text` as words of its own, or None; `plural` finds the name in "red pandas" too."""
    return next((name for name in names if re.search(_as_word(name, plural=plural), text)), None)


def _as_word(name: str, *, plural: bool = False) -> str:
    # "US" is a country and "us" is a word: short names count only in their own case, and "uses" is no plural of one.
    short = len(name) <= _SHORT
    written = re.escape(name) if short else f"(?i:{re.escape(name)}{'(?:e?s)?' * plural})"
    before, after = r"(?<!\w)", r"(?!\w)"
    # Chinese, Japanese, Thai and their like put no space beside a name, so there a name has no bounds.
    return f"{before * (not _UNSPACED.match(name[:1]))}{written}{after * (not _UNSPACED.match(name[-1:]))}"
