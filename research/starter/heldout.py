"""What Atlas holds out, and the one judgement of whether something is about it: by symbol, by name, by text, by look.

Used when the starter's data are made, and again, on the finished data, by `prove`.
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
from research.starter.drawing import Looks, twins
from research.starter.names import Key, key, keys, loose_keys

COLOUR_DISTANCE = 8.0  # these two were set by eye, on pairs sorted by either figure: above are only chance meetings
SHAPE_LIKENESS = 0.94
_HELD_OUT = ("dev", "test")
_DRAWN = ("twemoji", "openmoji", "flag_twemoji", "flag_openmoji")
_FIRST_LETTER = 0x1F1E6
_SELECTOR, _JOINER, _PERSON = 0xFE0F, 0x200D, 0x1F9D1
_PEOPLE = {0x1F468: _PERSON, 0x1F469: _PERSON}
_GENDER = frozenset({0x2640, 0x2642})


@dataclass(frozen=True)
class HeldOut:
    """The dev and test part of one built Atlas.

    Attributes:
        pictographs: All pictographs, rows of Atlas's table.
        places: All places, rows of Atlas's table.
        synonyms: Further names by English name, from a thesaurus.
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
    def _called_places(self) -> frozenset[str]:
        return frozenset(name for row in self._places for name in (row["name"], *row["aliases"]))

    @cached_property
    def groups(self) -> frozenset[str]:
        """Entity groups of held-out pictographs and places."""
        return frozenset(row["entity_group"] for row in (*self._pictographs, *self._places))

    @cached_property
    def names(self) -> frozenset[Key]:
        """Keys of names, aliases and names in other languages of held-out pictographs and places."""
        texts = _called(self._pictographs) | self._called_places
        texts |= {entry["name"] for row in self._pictographs for entry in row["names"]}
        return frozenset(one for text in texts for one in keys(text))

    @cached_property
    def english(self) -> frozenset[Key]:
        """English names and what else the thing may be called; held against all but Atlas's own trained pictographs."""
        texts = _called(row for row in self._pictographs if row["variant"] == "base")
        texts |= {other for text in texts for other in self.synonyms.get(text.casefold(), ())}
        return frozenset(one for text in texts | self._called_places for one in loose_keys(text))

    @cached_property
    def _by_word(self) -> dict[str, list[Key]]:
        found: dict[str, list[Key]] = {}
        for one in self.english:
            found.setdefault(min(one), []).append(one)
        return found

    def named(self, text: str) -> bool:
        """Whether `text` is the name of something held out."""
        return not self.names.isdisjoint(keys(text))

    def called(self, word: str) -> bool:
        """Whether a word of the thesaurus is a held-out name in English, loosely."""
        return self.named(word) or not self.english.isdisjoint(keys(word))

    def mentions(self, text: str) -> bool:
        """Whether all the words of a held-out name stand in the short name or caption `text` ("red apple")."""
        own = key(text)
        joined = frozenset().union(*keys(text)) | own
        return any(one <= joined for word in joined for one in self._by_word.get(word, ()))

    def shows(self, caption: str) -> bool:
        """Whether the name or caption of a picture tells that something held out is in it."""
        return self.named(caption) or self.mentions(caption) or self.tells_of_place(caption)

    @cached_property
    def _symbols(self) -> frozenset[str]:
        return frozenset(bare(row["id"]) for row in self._pictographs)

    @cached_property
    def trained(self) -> dict[str, Mapping[str, Any]]:
        """Trained pictographs by id."""
        return {row["id"]: row for row in self.pictographs if row["split"] == "train"}

    def symbol(self, id_: str) -> bool:
        """Whether an emoji (hex code points joined by dashes) is of a held-out family, in any tone or gender."""
        return bare(id_) in self._symbols

    def place(self, code: str) -> bool:
        """Whether an ISO code of two letters is that of a held-out place."""
        return any(row["place_id"] == code for row in self._places)

    def place_called(self, name: str) -> bool:
        """Whether a name, however it is written, is that of a held-out place ("south-korea")."""
        return not self._place_keys.isdisjoint(keys(name))

    @cached_property
    def _place_keys(self) -> frozenset[Key]:
        return frozenset(one for name in self._called_places for one in keys(name))

    @cached_property
    def _place_names(self) -> re.Pattern[str]:
        names = sorted((name for name in self._called_places if len(name) > 2), key=len, reverse=True)
        return re.compile("|".join(rf"\b{re.escape(name)}" for name in names) or "(?!)")

    def tells_of_place(self, text: str) -> bool:
        """Whether a text names a held-out place or, by the same stem, its people."""
        return bool(self._place_names.search(text))

    def without_places(self, text: str, other: str) -> str:
        """The text with `other` in place of each name of a held-out place."""
        return self._place_names.sub(other, text)

    @cached_property
    def looks(self) -> Looks:
        """Every held-out drawing and flag, in both styles."""
        return Looks(self.store.load(id_) for id_ in sorted(self._held_out(_DRAWN)))

    @cached_property
    def pictures(self) -> frozenset[str]:
        """Image ids of held-out drawings, flags and maps."""
        return self._held_out((*_DRAWN, "map", "locator"))

    def _held_out(self, fields: Iterable[str]) -> frozenset[str]:
        return _images((*self._pictographs, *self._places), fields)

    @cached_property
    def own_pictures(self) -> frozenset[str]:
        """Image ids of Atlas's trained drawings and flags; how alike they are to held-out ones is Atlas's to tell."""
        rows = [row for row in (*self.pictographs, *self.places) if row["split"] == "train"]
        return _images(rows, _DRAWN) - self.pictures

    def seen(self, pictures: Iterable[Image.Image]) -> NDArray[np.bool_]:
        """Which of the pictures look like a held-out one."""
        return twins(Looks(pictures), self.looks, colour_distance=COLOUR_DISTANCE, shape_likeness=SHAPE_LIKENESS)


def read_held_out(atlas: Path, synonyms: Mapping[str, frozenset[str]]) -> HeldOut:
    """Read a built Atlas.

    Raises:
        FoundryError: A table or the pictures are missing.
    """
    return HeldOut(
        read_rows(atlas / "corpus" / "pictographs.parquet"),
        read_rows(atlas / "corpus" / "places.parquet"),
        ImageStore([atlas / "images"]),
        synonyms,
    )


def _called(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """English names, aliases and families of pictographs."""
    return {text for row in rows for text in (row["name"], *row["aliases"], row["family"])}


def _images(rows: Iterable[Mapping[str, Any]], fields: Iterable[str]) -> frozenset[str]:
    wanted = tuple(fields)
    return frozenset(row[name] for row in rows for name in wanted if row.get(name))


def bare(id_: str) -> str:
    """An emoji without tone, gender and variation selectors.

    >>> bare("1f469-1f3fd-200d-1f692") == bare("1f9d1-200d-1f692")
    True
    """
    codes = [int(part, 16) for part in id_.split("-")]
    codes = [_PEOPLE.get(code, code) for code in codes if code not in TONES and code != _SELECTOR]
    if len(codes) > 1 and codes[-1] in _GENDER:
        codes = codes[:-2] if codes[-2] == _JOINER else codes[:-1]
    return "-".join(f"{code:x}" for code in codes)


def region(symbol: str) -> str:
    """Code of the place whose flag an emoji is; empty for all others.

    >>> region("1f1e6-1f1e9")
    'ad'
    """
    letters = [int(part, 16) - _FIRST_LETTER for part in symbol.split("-") if part]
    is_flag = len(letters) == 2 and all(0 <= letter < 26 for letter in letters)
    return "".join(chr(ord("a") + letter) for letter in letters) if is_flag else ""
