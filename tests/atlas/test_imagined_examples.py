"""Examples about imagined places lead to the passage under their name or flag."""

from __future__ import annotations

from collections import Counter

import pytest

from gme_data.examples import Example, read_examples


@pytest.fixture(scope="module")
def imagined(small_atlas) -> list[Example]:
    return [
        example
        for example in read_examples(small_atlas / "examples" / "train")
        if example.source.startswith("imagined-")
    ]


def test_each_place_gives_an_example_of_each_kind_to_train_on(small_atlas, small_world, imagined) -> None:
    count = len(small_world.imagined)
    trained = sum(place.split == "train" for place in small_world.places)
    assert 4 * trained < count <= 8 * trained
    assert Counter(example.source for example in imagined) == {
        "imagined-flag": count,
        "imagined-flag-description": 2 * count,
        "imagined-flag-question": count,
        "imagined-flag-question-illustrated": count,
        "imagined-illustrated-question": count,
    }
    assert {example.split for example in imagined} == {"train"}
    assert not any(
        example.source.startswith("imagined-") for example in read_examples(small_atlas / "examples" / "dev")
    )


def test_a_question_with_a_flag_leads_to_the_passage_that_describes_it(small_world, imagined) -> None:
    place_of = {place.entity_group: place for place in small_world.imagined}
    for example in imagined:
        place = place_of[example.entity_group]
        if example.source == "imagined-flag-question":
            name, _, text = (example.positive.text or "").partition(". ")
            section, _, said = text.partition(" Flag: ")
            assert (name, section.partition(".")[0]) == (place.name, "Government")
            assert place.flag_description.startswith(said.rstrip(".,;"))
            assert (example.query.image, example.positive.image) == (place.flag_outlined, None)
            assert place.name not in (example.query.text or "")
        if example.source == "imagined-flag-question-illustrated":
            assert (example.query.image, example.positive.image) == (place.flag_outlined, place.flag_flat)


def test_a_question_that_names_a_place_leads_to_the_passage_under_that_name(small_world, imagined) -> None:
    place_of = {place.entity_group: place for place in small_world.imagined}
    questions = [example for example in imagined if example.source == "imagined-illustrated-question"]
    for example in questions:
        assert (example.answer or "-").casefold() in (example.positive.text or "").casefold()
        name = place_of[example.entity_group].name
        assert name in (example.query.text or "")
        assert (example.positive.text or "").startswith(f"{name}. ")
        assert (example.positive.text or "").split(". ")[1] == example.batch_key.partition("/")[0]
