"""Imagined places: a random name and a random flag, to be used with the passages of a trained place.

With some hundred trained places a model memorises each and doesn't generalise to an unseen one. From imagined places,
which occur in a few examples each, it can only learn what generalises: to compare names and to read a flag. All of them
are trained on. None has the name of a real place, and none of their flags looks like a held-out one or is described in
its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from atlas.album import Album
from atlas.config import AtlasConfig
from atlas.procedural_flags import LICENCE, draw_flat, draw_outlined, generate_flag
from atlas.splits import thumbnail
from atlas.world import ImaginedRow, PlaceRow
from gme_data.progress import track

_LOOKALIKE_DISTANCE = 14.5
"""Mean absolute difference of thumbnails (0-255) below which two flags look alike; chosen by eye."""
_NGRAM = 13
"""Words of an n-gram that no description shares with a held-out one; the contamination check uses as many."""
_ONSETS = (*"bcdfghjklmnprstvwyz", "br", "ch", "dr", "fl", "gr", "kh", "kr", "pr", "sh", "st", "tr")
_VOWELS = (*"aaaeeiioou", "ai", "au", "ia", "ou")
_ENDINGS = (
    "ria", "nia", "lia", "ssia", "land", "stan", "ra", "na", "nda", "ba", "go", "dor", "mar", "ntu", "bwe", "ri", "nes",
    "lles", "than", "lor", "vay", "que", "sk", "gua",
)  # fmt: skip
_NAME_TEMPLATES = (*("{}",) * 8, "{} Islands", "Saint {}", "New {}", "North {}", "South {}", "Republic of the {}")


def imagine(places: Sequence[PlaceRow], config: AtlasConfig, album: Album) -> tuple[ImaginedRow, ...]:
    """Returns at most `config.imagined` places per trained one.

    A candidate is dropped if its name or description is taken already, or if its flag looks like a held-out flag or
    shares an n-gram with the description of one.
    """
    candidates = config.imagined * sum(place.split == "train" for place in places)
    held_out = [place for place in places if place.split != "train"]
    held_out_ngrams = {ngram for place in held_out for ngram in _ngrams(place.flag_description or "")}
    held_out_flat = _thumbnails(album.open(place.flag_twemoji) for place in held_out)
    held_out_outlined = _thumbnails(album.open(place.flag_openmoji) for place in held_out)
    names = {name.casefold() for place in places for name in (place.name, *place.aliases)}
    descriptions = {place.flag_description or "" for place in places}
    rows = []
    for number in track(range(candidates), "imagine places", candidates, "places"):
        flag, name = generate_flag(config.seed, number), imagined_name(config.seed, number)
        if name.casefold() in names or flag.description in descriptions:
            continue
        if not held_out_ngrams.isdisjoint(_ngrams(flag.description)):
            continue
        flat, outlined = (draw(flag, config.seed + number) for draw in (draw_flat, draw_outlined))
        if _looks_like_any(flat, held_out_flat) or _looks_like_any(outlined, held_out_outlined):
            continue
        names.add(name.casefold())
        descriptions.add(flag.description)
        rows.append(
            ImaginedRow(
                place_id=str(number),  # of the candidate, so that dropping one renames no other
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
    """Returns name number `number`: two to four syllables, now and then with a word such as "New"."""
    rng = np.random.default_rng([seed, number, 1])

    def choose(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    syllables = "".join(choose(_ONSETS) + choose(_VOWELS) for _ in range(rng.integers(1, 4)))
    return choose(_NAME_TEMPLATES).format((syllables + choose(_ENDINGS)).capitalize())


def rename_place(text: str, old: str, new: str) -> str:
    """Returns a text with the name `old` of a place replaced by `new`, at word boundaries."""
    return re.sub(rf"\b{re.escape(old)}\b", new, text)


def _ngrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + _NGRAM]) for start in range(len(words) - _NGRAM + 1)}


def _thumbnails(images: Iterable[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(image) for image in images])


def _looks_like_any(image: Image.Image, others: np.ndarray) -> bool:
    """Whether an image is close to one of the thumbnails [flags, pixels]."""
    return bool((np.abs(others - thumbnail(image)).mean(axis=1) < _LOOKALIKE_DISTANCE).any())
