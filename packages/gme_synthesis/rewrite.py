"""Step 3, the entity found in the question and its name replaced by a reference (paper: by an LLM; here: by names).

"What is the capital of Norway?" -> "What is the capital of this country?". Neither the name nor an alias may survive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gme_synthesis.records import Draft, Fact, Place, Reject, pick

_SHORT = 3
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Thai, Lao, Burmese, Khmer, kana and the characters of China."""


class EntityRewriter:
    """Replaces a place's names by one of `references`.

    A possessive ("Norway's") takes the first reference, which must read well before "'s".
    """

    def __init__(
        self, places: Mapping[str, Place], facts: Mapping[str, Fact], references: Sequence[str], seed: int
    ) -> None:
        self._places, self._facts, self._references, self._seed = places, facts, references, seed

    def run(self, drafts: Sequence[Draft]) -> Iterator[Draft | Reject]:
        """Input columns: `fact_id`, `wording`, `question`. Output column: `fused`."""
        for draft in drafts:
            names = self._places[self._facts[draft.fact_id].place_id].names
            reference = pick(self._references, self._seed, "reference", draft.fact_id, draft.wording)
            fused = replace_names(draft.question, names, reference, before_possessive=self._references[0])
            if fused == draft.question:
                yield Reject("entity", "name-not-found", draft.fact_id, draft.question)
            elif surviving := surviving_name(fused, names):
                yield Reject("entity", "name-survives", draft.fact_id, f"{surviving} in: {fused}")
            else:
                yield replace(draft, fused=fused)


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
