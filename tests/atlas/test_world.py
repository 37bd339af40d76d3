from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from pydantic import ValidationError

from atlas.config import AtlasConfig, SplitShares
from atlas.edits import pictograph_edits, wish
from atlas.factbook import clean, read_places, shorten
from atlas.fields import FIELDS
from atlas.maps import draw_locator, draw_outline
from atlas.pages import Block, render_page
from atlas.pictographs import read_pictographs
from atlas.splits import assign_splits, merge_lookalikes
from atlas.wordings import PHRASINGS, all_wordings


def test_sources_hold_what_the_reference_counted():
    places, pictographs = read_places(), read_pictographs()
    assert len(places) == 241
    assert len({place.name for place in places}) == 241
    assert sum(item.variant == "base" for item in pictographs) == 1641
    assert len({item.base_id for item in pictographs if item.variant != "base"}) == 323


def test_flag_descriptions_do_not_name_the_place():
    for place in read_places():
        for name in (place.name, *place.aliases):
            assert name.lower() not in (place.flag_description or "").lower()


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("84,012,284 (2025 est.)", 60, "84,012,284"),
        ("2,389 km", 6, "2,389"),
        ("German Unity Day, 3 October (1990)", 60, "German Unity Day, 3 October"),
        ("five-pointed star between the horns of a waxing crescent moon", 45, "five-pointed star between the horns"),
        ("<p>iron, steel, coal, cement, chemicals</p>", 20, "iron, steel, coal"),
    ],
)
def test_values_end_where_a_reader_would_end_them(text, length, expected):
    assert shorten(text, length) == expected


def test_clean_drops_markup():
    assert clean("<p>C&ocirc;te  d'Ivoire</p>") == "Côte d'Ivoire"


def test_facts_stand_in_their_passages(small_world):
    passages = {passage.id: passage for passage in small_world.passages}
    assert len(small_world.facts) > 500
    for fact in small_world.facts:
        assert fact.value in passages[fact.passage_id].text
        assert passages[fact.passage_id].section == fact.section


def test_passages_are_short_and_start_with_place_and_section(small_world):
    for passage in small_world.passages:
        assert passage.text.startswith(f"{passage.place_name}. {passage.section}. ")
        assert len(passage.text.split()) <= 55
        assert passage.page
        assert passage.illustration


def test_government_passages_start_the_flag_description(small_world):
    described = {place.place_id: place.flag_description for place in small_world.places if place.flag_description}
    for passage in small_world.passages:
        if passage.section == "Government" and passage.place_id in described:
            start = passage.text.split(" Flag: ")[1].rstrip(".")
            assert len(start) > 15
            assert start[:15] in described[passage.place_id]


def test_every_field_is_worded_in_every_split_and_wordings_are_disjoint():
    assert set(PHRASINGS) == {field.name for field in FIELDS}
    counts: Counter[tuple[str, str, str]] = Counter()
    splits = defaultdict(set)
    for wording in all_wordings():
        assert ("{place}" in wording.template) == (wording.kind == "named")
        assert ("{reference}" in wording.template) == (wording.kind == "deictic")
        counts[wording.field, wording.split, wording.kind] += 1
        splits[wording.template.lower()].add(wording.split)
    for field in PHRASINGS:
        assert counts[field, "train", "named"] >= 8
        assert counts[field, "dev", "named"] == counts[field, "test", "named"] == 3
        assert min(counts[field, split, "deictic"] for split in ("train", "dev", "test")) >= 2
    assert all(len(found) == 1 for found in splits.values())


def test_shares_hold_in_every_stratum():
    strata = {f"{stratum}-{number}": stratum for stratum in "abc" for number in range(100)}
    splits = assign_splits(strata, SplitShares(), seed=3)
    for stratum in "abc":
        found = Counter(splits[group] for group in strata if strata[group] == stratum)
        assert abs(found["train"] - 60) <= 1
        assert abs(found["dev"] - 15) <= 1
        assert abs(found["test"] - 25) <= 1


def test_shares_must_add_up():
    with pytest.raises(ValidationError, match="must be 1"):
        AtlasConfig(shares={"train": 0.5, "dev": 0.2, "test": 0.2})


def test_lookalikes_merge_through_any_style_and_in_chains():
    one = np.array([[0.0], [50.0], [50.1], [99.0]])
    other = np.array([[0.0], [10.0], [90.0], [0.1]])
    groups = merge_lookalikes(["a", "b", "c", "d"], [one, other], limit=0.5)
    assert groups == {"a": "a", "b": "b", "c": "b", "d": "a"}


def test_tone_edits_offer_the_other_tones_as_decoys(small_world):
    edits = [edit for edit in pictograph_edits(small_world.pictographs) if edit.kind == "tone"]
    assert edits
    for edit in edits:
        assert edit.before.id == edit.after.base_id
        assert edit.target not in edit.decoys
        assert edit.image not in edit.decoys
    assert max(len(edit.decoys) for edit in edits) == 4


def test_gender_edits_change_nothing_but_the_gender(small_world):
    for edit in pictograph_edits(small_world.pictographs):
        if edit.kind == "gender":
            assert edit.before.family == edit.after.family
            assert edit.after.gender == edit.value != edit.before.gender
            assert edit.before.name.endswith("right") == edit.after.name.endswith("right")


def test_wishes_differ_between_splits():
    texts = [{wish(kind, split, "dark", number) for number in range(30)}
             for kind in ("tone", "map") for split in ("train", "dev", "test")]  # fmt: skip
    assert len(set.union(*texts)) == sum(len(found) for found in texts)


def test_pages_have_their_size_and_show_their_text():
    blocks = [Block("Geography", ("Location: here", "Coastline: 12 km"))]
    page = render_page("Somewhere", [], blocks, (320, 400))
    other = render_page("Somewhere", [], [Block("Geography", ("Location: here", "Coastline: 13 km"))], (320, 400))
    assert page.size == (320, 400)
    assert page.tobytes() != other.tobytes()
    assert page.tobytes() == render_page("Somewhere", [], blocks, (320, 400)).tobytes()


def test_outlines_fill_their_square_across_the_date_line():
    box = (((178.0, -20.0), (-178.0, -20.0), (-178.0, -16.0), (178.0, -16.0)),)
    image = draw_outline(box, 64)
    assert image.getpixel((32, 32)) != (255, 255, 255)
    assert image.getpixel((1, 1)) == (255, 255, 255)


def test_locators_put_the_dot_in_the_middle():
    red, green, blue = draw_locator((46.8, 8.2), "ch", 72).getpixel((36, 36))
    assert red > 150 > green
    assert blue < 100
