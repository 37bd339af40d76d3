"""Imagined places resemble no held-out place, in name, in flag or in description."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from atlas.album import Album
from atlas.config import AtlasConfig
from atlas.imagined import imagine, imagined_name, rename_place
from atlas.procedural_flags import draw_flat, draw_outlined, generate_flag
from atlas.splits import thumbnail
from gme_data.images import ImageStore


def test_none_is_called_like_a_place_or_has_a_flag_like_one_that_is_held_out(small_atlas, small_world) -> None:
    names = {place.name for place in small_world.places}
    assert names.isdisjoint(place.name for place in small_world.imagined)
    store = ImageStore([small_atlas / "images"])
    held_out = [place for place in small_world.places if place.split != "train"]
    for of_place, of_imagined in (("flag_twemoji", "flag_flat"), ("flag_openmoji", "flag_outlined")):
        flags = np.stack([thumbnail(store.load(getattr(place, of_place))) for place in held_out])
        for place in small_world.imagined:
            distances = np.abs(flags - thumbnail(store.load(getattr(place, of_imagined)))).mean(axis=1)
            assert distances.min() > 14


def test_a_flag_like_a_held_out_one_is_left_out(small_world) -> None:
    album = Album(72)
    blank = album.add("blank", "MIT", lambda: Image.new("RGB", (72, 72), "#7f7f7f"))
    flat_of_3 = album.add("flat", "MIT", draw_flat(generate_flag(17, 3), 20).copy)
    outlined_of_4 = album.add("outlined", "MIT", draw_outlined(generate_flag(17, 4), 21).copy)
    long = next(number for number in range(6, 60) if len(generate_flag(17, number).description.split()) > 14)
    description = f"first this; {generate_flag(17, long).description}; and more"
    held_out = [(flat_of_3, blank, None), (blank, outlined_of_4, None), (blank, blank, description)]
    places = [place for place in small_world.places if place.split == "train"]
    places += [
        replace(places[0], split="test", flag_twemoji=flat, flag_openmoji=outlined, flag_description=description)
        for flat, outlined, description in held_out
    ]
    imagined = {place.place_id for place in imagine(places, AtlasConfig(), album)}
    assert imagined.isdisjoint({"3", "4", str(long)})
    assert {"1", "2", "5"} <= imagined


def test_a_passage_is_renamed_at_whole_words(small_world) -> None:
    passage = small_world.passages[0]
    text = rename_place(passage.text, passage.place_name, "Rari")
    assert text.startswith("Rari. ")
    assert passage.place_name not in text


def test_names_differ() -> None:
    names = [imagined_name(17, number) for number in range(500)]
    assert len(set(names)) > 480
    assert names[:3] == [imagined_name(17, number) for number in range(3)]
