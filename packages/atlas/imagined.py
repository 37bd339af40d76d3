"""Places that do not exist: a name and a flag put together at random, and the passages of a trained place under them.

With some hundred trained places a model learns each by heart and has nothing for one that it has not seen. Of an
imagined one it can only learn what carries over: to compare names, to read a flag. All of them are trained on; none is
called like a place, and none of their flags looks like a held-out one or is described in its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from atlas.album import Album
from atlas.config import AtlasConfig
from atlas.flag_invention import LICENCE, draw_flat, draw_outlined, invent
from atlas.splits import thumbnail
from atlas.world import ImaginedRow, PlaceRow
from gme_data.progress import track

_ALIKE = 14.5
"""Mean absolute difference of thumbnails (0-255) below which a flag may be taken for another; set by eye."""
_TOLD = 13
"""Words in a row that a description may not share with one that is held out; validation looks for as many."""
_ONSETS = (*"bcdfghjklmnprstvwyz", "br", "ch", "dr", "fl", "gr", "kh", "kr", "pr", "sh", "st", "tr")
_VOWELS = (*"aaaeeiioou", "ai", "au", "ia", "ou")
_ENDINGS = (
    "ria", "nia", "lia", "ssia", "land", "stan", "ra", "na", "nda", "ba", "go", "dor", "mar", "ntu", "bwe", "ri", "nes",
    "lles", "than", "lor", "vay", "que", "sk", "gua",
)  # fmt: skip
_KINDS = (*("{}",) * 8, "{} Islands", "Saint {}", "New {}", "North {}", "South {}", "Republic of the {}")


def imagine(places: Sequence[PlaceRow], config: AtlasConfig, album: Album) -> tuple[ImaginedRow, ...]:
    """At most `config.imagined` places per trained one; a flag that looks or is described like another is left out."""
    wanted = config.imagined * sum(place.split == "train" for place in places)
    real = {name.casefold() for place in places for name in (place.name, *place.aliases)}
    taken = {place.flag_description or "" for place in places}
    told = {run for place in places if place.split != "train" for run in _runs(place.flag_description or "")}
    seen = _Seen(places, album)
    rows = []
    for number in track(range(wanted), "imagine places", wanted, "places"):
        flag, name = invent(config.seed, number), imagined_name(config.seed, number)
        if name.casefold() in real or flag.description in taken or not told.isdisjoint(_runs(flag.description)):
            continue
        flat, outlined = (draw(flag, config.seed + number) for draw in (draw_flat, draw_outlined))
        if seen.before(flat, outlined):
            continue
        real.add(name.casefold())
        taken.add(flag.description)
        rows.append(
            ImaginedRow(
                place_id=str(number),
                name=name,
                entity_group=f"imagined:{number}",
                split="train",
                flag_flat=album.add(f"imagined-flat:{number}", LICENCE, flat.copy),
                flag_outlined=album.add(f"imagined-outlined:{number}", LICENCE, outlined.copy),
                flag_description=flag.description,
                licence=LICENCE,
            )
        )
    return tuple(rows)


def imagined_name(seed: int, number: int) -> str:
    """The name of a number: two to four syllables, now and then with a word beside them."""
    rng = np.random.default_rng([seed, number, 1])

    def one(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    syllables = "".join(one(_ONSETS) + one(_VOWELS) for _ in range(rng.integers(1, 4)))
    return one(_KINDS).format((syllables + one(_ENDINGS)).capitalize())


def renamed(text: str, place: str, name: str) -> str:
    """A text with another name in place of a place's."""
    return re.sub(rf"\b{re.escape(place)}\b", name, text)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + _TOLD]) for start in range(len(words) - _TOLD + 1)}


class _Seen:
    """Flags that are held out, by their looks."""

    def __init__(self, places: Sequence[PlaceRow], album: Album) -> None:
        """Hang up those of `places`."""
        held_out = [place for place in places if place.split != "train"]
        self._flat = _thumbnails(album.open(place.flag_twemoji) for place in held_out)
        self._outlined = _thumbnails(album.open(place.flag_openmoji) for place in held_out)

    def before(self, flat: Image.Image, outlined: Image.Image) -> bool:
        """Whether a flag looks like one of them in either style."""
        return _near(flat, self._flat) or _near(outlined, self._outlined)


def _thumbnails(images: Iterable[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(image) for image in images])


def _near(image: Image.Image, others: np.ndarray) -> bool:
    return bool((np.abs(others - thumbnail(image)).mean(axis=1) < _ALIKE).any())
