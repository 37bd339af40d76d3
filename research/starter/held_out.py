"""The entities that Atlas holds out, and tests of whether a symbol, name, text or picture is about one of them.

The tests filter the starter's data while they are built, and check the finished data in `leak_check`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atlas.pictographs import TONES
from gme_data.images import ImageStore
from gme_data.parquet import read_rows
from research.starter.fingerprints import Fingerprints, near_duplicates
from research.starter.names import Key, key, keys, loose_keys

COLOUR_DISTANCE = 8.0
SHAPE_CORRELATION = 0.94
"""Thresholds of `near_duplicates`, chosen by eye on pairs sorted by either measure."""
_HELD_OUT = ("dev", "test")
_PICTURE_COLUMNS = ("twemoji", "openmoji", "flag_twemoji", "flag_openmoji")
_REGIONAL_INDICATOR_A = 0x1F1E6
_SELECTOR, _JOINER, _PERSON = 0xFE0F, 0x200D, 0x1F9D1
_PEOPLE = {0x1F468: _PERSON, 0x1F469: _PERSON}
_GENDER = frozenset({0x2640, 0x2642})


@dataclass(frozen=True)
class HeldOutEntities:
    """Tests of whether something is about an entity of the dev or test part of an Atlas.

    Attributes:
        pictographs: All pictographs, as rows of Atlas's table.
        places: All places, as rows of Atlas's table.
        store: The pictures of the Atlas.
        synonyms: Synonyms by English name, from WordNet.
    """

    pictographs: Sequence[Mapping[str, Any]]
    places: Sequence[Mapping[str, Any]]
    store: ImageStore
    synonyms: Mapping[str, frozenset[str]]

    @cached_property
    def _pictographs(self) -> list[Mapping[str, Any]]:
        return [row for row in self.pictographs if row["split"] in _HELD_OUT]

    @cached_property
    def _places(self) -> list[Mapping[str, Any]]:
        return [row for row in self.places if row["split"] in _HELD_OUT]

    @cached_property
    def _place_names(self) -> frozenset[str]:
        return frozenset(name for row in self._places for name in (row["name"], *row["aliases"]))

    @cached_property
    def groups(self) -> frozenset[str]:
        """Entity groups of held-out pictographs and places."""
        return frozenset(row["entity_group"] for row in (*self._pictographs, *self._places))

    @cached_property
    def names(self) -> frozenset[Key]:
        """Keys of names, aliases and names in other languages of held-out pictographs and places."""
        texts = _english_names(self._pictographs) | self._place_names
        texts |= {entry["name"] for row in self._pictographs for entry in row["names"]}
        return frozenset(name for text in texts for name in keys(text))

    @cached_property
    def english_names(self) -> frozenset[Key]:
        """Keys of English names and synonyms, also without words such as "face".

        They are looser than `names`, so Atlas's own trained pictographs are not tested against them.
        """
        texts = _english_names(row for row in self._pictographs if row["variant"] == "base")
        texts |= {other for text in texts for other in self.synonyms.get(text.casefold(), ())}
        return frozenset(name for text in texts | self._place_names for name in loose_keys(text))

    @cached_property
    def _by_word(self) -> dict[str, list[Key]]:
        # An index by any one word, so that `mentioned_in` compares a text with a few names and not with all.
        by_word: dict[str, list[Key]] = {}
        for name in self.english_names:
            by_word.setdefault(min(name), []).append(name)
        return by_word

    def has_name(self, text: str) -> bool:
        """Whether `text` is the name of a held-out entity, in English or one of the other languages."""
        return not self.names.isdisjoint(keys(text))

    def has_english_name(self, word: str) -> bool:
        """Whether a word of WordNet is a held-out name or a synonym of one."""
        return self.has_name(word) or not self.english_names.isdisjoint(keys(word))

    def mentioned_in(self, text: str) -> bool:
        """Whether the name or caption `text` has all words of a held-out name ("red apple" of "apple")."""
        words = frozenset().union(*keys(text)) | key(text)
        return any(name <= words for word in words for name in self._by_word.get(word, ()))

    def shown_by(self, caption: str) -> bool:
        """Whether by its name or caption a picture shows a held-out entity."""
        return self.has_name(caption) or self.mentioned_in(caption) or self.place_mentioned_in(caption)

    @cached_property
    def _symbols(self) -> frozenset[str]:
        return frozenset(normalize_symbol(row["id"]) for row in self._pictographs)

    @cached_property
    def train_pictographs(self) -> dict[str, Mapping[str, Any]]:
        """Pictographs of the train split by id."""
        return {row["id"]: row for row in self.pictographs if row["split"] == "train"}

    def has_symbol(self, id_: str) -> bool:
        """Whether an emoji (hex code points joined by dashes) is of a held-out family, in any tone or gender."""
        return normalize_symbol(id_) in self._symbols

    def has_place_code(self, code: str) -> bool:
        """Whether an ISO 3166 alpha-2 code is that of a held-out place."""
        return any(row["place_id"] == code for row in self._places)

    def has_place_name(self, name: str) -> bool:
        """Whether a name, in any spelling ("south-korea"), is that of a held-out place."""
        return not self._place_keys.isdisjoint(keys(name))

    @cached_property
    def _place_keys(self) -> frozenset[Key]:
        return frozenset(key_ for name in self._place_names for key_ in keys(name))

    @cached_property
    def _place_pattern(self) -> re.Pattern[str]:
        # Longer names come first, since a regular expression takes the first alternative that matches. Abbreviations of
        # two letters would match the start of other words.
        names = sorted((name for name in self._place_names if len(name) > 2), key=len, reverse=True)
        return re.compile("|".join(rf"\b{re.escape(name)}" for name in names) or "(?!)")

    def place_mentioned_in(self, text: str) -> bool:
        """Whether a text has the name of a held-out place, also as the stem of another word ("Andorrans")."""
        return bool(self._place_pattern.search(text))

    def replace_places(self, text: str, other: str) -> str:
        """Returns a text with each name of a held-out place replaced by `other`."""
        return self._place_pattern.sub(other, text)

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Fingerprints of every held-out drawing and flag, in both styles."""
        return Fingerprints(self.store.load(id_) for id_ in sorted(self._held_out(_PICTURE_COLUMNS)))

    @cached_property
    def pictures(self) -> frozenset[str]:
        """Image ids of held-out drawings, flags and maps."""
        return self._held_out((*_PICTURE_COLUMNS, "map", "locator"))

    def _held_out(self, columns: Sequence[str]) -> frozenset[str]:
        return _images((*self._pictographs, *self._places), columns)

    @cached_property
    def train_pictures(self) -> frozenset[str]:
        """Image ids of drawings and flags of the train split; Atlas itself decides which of them are alike."""
        rows = [row for row in (*self.pictographs, *self.places) if row["split"] == "train"]
        return _images(rows, _PICTURE_COLUMNS) - self.pictures

    def look_alikes(self, pictures: Iterable[Image.Image]) -> NDArray[np.bool_]:
        """Returns which of the pictures look like a held-out one."""
        return near_duplicates(
            Fingerprints(pictures),
            self.fingerprints,
            colour_distance=COLOUR_DISTANCE,
            shape_correlation=SHAPE_CORRELATION,
        )


def read_held_out(atlas: Path, synonyms: Mapping[str, frozenset[str]]) -> HeldOutEntities:
    """Reads the tables of a built Atlas.

    Raises:
        FoundryError: A table or the pictures are missing.
    """
    return HeldOutEntities(
        read_rows(atlas / "corpus" / "pictographs.parquet"),
        read_rows(atlas / "corpus" / "places.parquet"),
        ImageStore([atlas / "images"]),
        synonyms,
    )


def _english_names(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Returns the English names, aliases and families of pictographs."""
    return {text for row in rows for text in (row["name"], *row["aliases"], row["family"])}


def _images(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> frozenset[str]:
    return frozenset(row[name] for row in rows for name in columns if row.get(name))


def normalize_symbol(id_: str) -> str:
    """Returns an emoji without tone, gender and variation selectors.

    >>> normalize_symbol("1f469-1f3fd-200d-1f692") == normalize_symbol("1f9d1-200d-1f692")
    True
    """
    codes = [int(part, 16) for part in id_.split("-")]
    codes = [_PEOPLE.get(code, code) for code in codes if code not in TONES and code != _SELECTOR]
    if len(codes) > 1 and codes[-1] in _GENDER:
        codes = codes[:-2] if codes[-2] == _JOINER else codes[:-1]
    return "-".join(f"{code:x}" for code in codes)


def flag_code(symbol: str) -> str:
    """Returns the ISO code of the place whose flag an emoji is; empty for all other emoji.

    >>> flag_code("1f1e6-1f1e9")
    'ad'
    """
    letters = [int(part, 16) - _REGIONAL_INDICATOR_A for part in symbol.split("-") if part]
    is_flag = len(letters) == 2 and all(0 <= letter < 26 for letter in letters)
    return "".join(chr(ord("a") + letter) for letter in letters) if is_flag else ""
