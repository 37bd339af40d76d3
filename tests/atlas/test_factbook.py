"""Places and values of the Factbook are read as people would read them."""

from __future__ import annotations

import pytest

from atlas.factbook import clean, read_places, shorten
from atlas.pictographs import read_pictographs


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
