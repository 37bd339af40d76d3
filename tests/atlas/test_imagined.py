"""Places that do not exist: what is said of a flag is what is drawn, and nothing leads to what is held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from atlas.album import Album
from atlas.config import AtlasConfig
from atlas.flag_invention import _SHADES, draw_flat, draw_outlined, invent
from atlas.imagined import imagine, imagined_name, renamed
from atlas.splits import thumbnail
from gme_data.examples import Example, read_examples
from gme_data.images import ImageStore


@pytest.fixture(scope="module")
def imagined(small_atlas) -> list[Example]:
    return [one for one in read_examples(small_atlas / "examples" / "train") if one.source.startswith("imagined-")]


def test_each_place_gives_an_example_of_each_kind_to_train_on(small_atlas, small_world, imagined) -> None:
    count = len(small_world.imagined)
    trained = sum(place.split == "train" for place in small_world.places)
    assert 4 * trained < count <= 8 * trained
    assert Counter(one.source for one in imagined) == {
        "imagined-flag": count,
        "imagined-flag-description": 2 * count,
        "imagined-flag-question": count,
        "imagined-flag-question-illustrated": count,
        "imagined-illustrated-question": count,
    }
    assert {one.split for one in imagined} == {"train"}
    assert not any(one.source.startswith("imagined-") for one in read_examples(small_atlas / "examples" / "dev"))


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
    seen_flat = album.add("flat", "MIT", draw_flat(invent(17, 3), 20).copy)
    seen_outlined = album.add("outlined", "MIT", draw_outlined(invent(17, 4), 21).copy)
    long = next(number for number in range(6, 60) if len(invent(17, number).description.split()) > 14)
    told = f"said at first; {invent(17, long).description}; and more"
    held_out = [(seen_flat, blank, None), (blank, seen_outlined, None), (blank, blank, told)]
    places = [place for place in small_world.places if place.split == "train"]
    places += [
        replace(places[0], split="test", flag_twemoji=flat, flag_openmoji=outlined, flag_description=description)
        for flat, outlined, description in held_out
    ]
    found = {place.place_id for place in imagine(places, AtlasConfig(), album)}
    assert found.isdisjoint({"3", "4", str(long)})
    assert {"1", "2", "5"} <= found


def test_a_question_with_a_flag_leads_to_the_passage_that_describes_it(small_world, imagined) -> None:
    place_of = {place.entity_group: place for place in small_world.imagined}
    for one in imagined:
        place = place_of[one.entity_group]
        if one.source == "imagined-flag-question":
            name, _, text = (one.positive.text or "").partition(". ")
            section, _, said = text.partition(" Flag: ")
            assert (name, section.partition(".")[0]) == (place.name, "Government")
            assert place.flag_description.startswith(said.rstrip(".,;"))
            assert (one.query.image, one.positive.image) == (place.flag_outlined, None)
            assert place.name not in (one.query.text or "")
        if one.source == "imagined-flag-question-illustrated":
            assert (one.query.image, one.positive.image) == (place.flag_outlined, place.flag_flat)


def test_a_question_that_names_a_place_leads_to_the_passage_under_that_name(small_world, imagined) -> None:
    place_of = {place.entity_group: place for place in small_world.imagined}
    asked = [one for one in imagined if one.source == "imagined-illustrated-question"]
    for one in asked:
        assert (one.answer or "-").casefold() in (one.positive.text or "").casefold()
        name = place_of[one.entity_group].name
        assert name in (one.query.text or "")
        assert (one.positive.text or "").startswith(f"{name}. ")
        assert (one.positive.text or "").split(". ")[1] == one.batch_key.partition("/")[0]


def test_a_passage_is_renamed_at_whole_words(small_world) -> None:
    passage = small_world.passages[0]
    text = renamed(passage.text, passage.place_name, "Rari")
    assert text.startswith("Rari. ")
    assert passage.place_name not in text


def test_names_differ() -> None:
    names = [imagined_name(17, number) for number in range(500)]
    assert len(set(names)) > 480
    assert names[:3] == [imagined_name(17, number) for number in range(3)]


def test_bands_have_the_colours_that_are_said_in_that_order() -> None:
    flags = [invent(17, number) for number in range(200)]
    horizontal = [flag for flag in flags if "equal horizontal bands" in flag.description]
    horizontal = [flag for flag in horizontal if {shape.kind for shape in flag.shapes} == {"box"}]
    assert len(horizontal) > 3
    for flag in horizontal:
        drawn = np.asarray(draw_outlined(flag, 0), dtype=int)
        listed = flag.description.partition(" of ")[2].replace(", and ", ", ").replace(" and ", ", ")
        for place, colour in enumerate(listed.split(", ")):
            row = 18 + int(36 * (place + 0.5) / len(flag.shapes))
            wanted = [int(_SHADES[colour][1][at : at + 2], 16) for at in (1, 3, 5)]
            np.testing.assert_allclose(drawn[row, 12], wanted, atol=3)


@pytest.mark.parametrize("draw", [draw_flat, draw_outlined])
def test_a_flag_is_drawn_the_same_each_time_and_unlike_others(draw) -> None:
    first, second = (np.asarray(draw(invent(17, number), 17)) for number in (0, 1))
    assert (first == np.asarray(draw(invent(17, 0), 17))).all()
    assert (first != second).any()
