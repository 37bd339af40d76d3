"""Replaces names in texts by a reference, and finds names that survive.

"What is the capital of Norway?" -> "What is the capital of this country?". Neither the name nor an alias may survive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHORT_NAME_CHARS = 3
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Matches scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana and Chinese characters."""


def replace_names(question: str, names: Sequence[str], reference: str, *, before_possessive: str) -> str:
    """Returns `question` with every mention of any of `names` (longest first, with or without "the") replaced.

    Args:
        question: The question.
        names: Names of the entity, longest first.
        reference: Replacement of a name.
        before_possessive: Replacement of a name before "'s".

    Example:
        >>> replace_names("Who leads the Gambia?", ["Gambia"], "this country", before_possessive="this country")
        'Who leads this country?'
    """
    pattern = re.compile(rf"(?:\b[Tt]he\s+)?(?:{'|'.join(map(_word_pattern, names))})('s|\u2019s)?")

    def replacement(match: re.Match[str]) -> str:
        text = before_possessive if match.group(1) else reference
        if match.start() == 0:
            text = text[0].upper() + text[1:]
        return text + (match.group(1) or "")

    return pattern.sub(replacement, question)


def surviving_name(text: str, names: Sequence[str], *, plural: bool = False) -> str | None:
    """Returns the first name that occurs in `text` as separate words, if any; `plural` finds "red pandas", too."""
    return next((name for name in names if re.search(_word_pattern(name, plural=plural), text)), None)


def _word_pattern(name: str, *, plural: bool = False) -> str:
    # "US" is a country and "us" is a word: short names count only in their own case, and "uses" is no plural of one.
    short = len(name) <= _SHORT_NAME_CHARS
    written = re.escape(name) if short else f"(?i:{re.escape(name)}{'(?:e?s)?' * plural})"
    before, after = r"(?<!\w)", r"(?!\w)"
    # Chinese, Japanese, Thai and similar scripts put no space beside a name, so word bounds would never match.
    return f"{before * (not _UNSPACED.match(name[:1]))}{written}{after * (not _UNSPACED.match(name[-1:]))}"
