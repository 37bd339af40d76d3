"""Passages contain the facts that questions ask for."""

from __future__ import annotations


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
