"""Passages under other names and flags of no place say what they show, and nothing of what is held out."""

from __future__ import annotations

from gme_data.examples import Example, read_examples
from gme_data.images import ImageRecord
from gme_data.parquet import read_shards
from research.starter.config import StarterConfig
from research.starter.invented_flags import invented_flags


def of_source(made, source: str) -> list[Example]:
    return [one for one in read_examples(made.folder / "train") if one.source == source]


def test_a_passage_stands_under_the_name_that_is_asked_for(made) -> None:
    examples = of_source(made, "starter-place-question")
    names = {(one.positive.text or "").partition(".")[0] for one in examples}
    assert names == {"Moon", "Pyrenees"}  # Andorra is held out
    assert all((one.positive.text or "").partition(".")[0] in (one.query.text or "") for one in examples)
    assert all(one.split == "train" and one.batch_key.count("/") == 1 for one in examples)


def test_a_held_out_place_in_a_passage_gets_another_name(made) -> None:
    name = next(row["name"] for row in made.held_out.places if row["split"] == "test" and len(row["name"]) > 4)
    assert made.held_out.tells_of_place(f"South of {name}.")
    assert made.held_out.without_places(f"South of {name}.", "Moon") == "South of Moon."


def test_a_question_about_an_invented_flag_leads_to_its_description(made) -> None:
    shown = {row["id"]: ImageRecord(**row).source for row in read_shards(made.folder / "images", "images")}
    said = {
        one.query.image: one.positive.text for one in of_source(made, "starter-flag-description") if one.query.image
    }
    texts = of_source(made, "starter-flag-question")
    assert texts
    for one in texts:
        assert shown[one.query.image or ""].startswith("invented-outlined/")
        start = (one.positive.text or "").partition(" Flag: ")[2].rstrip(".")
        assert start
        assert (said[one.query.image] or "").startswith(start.rstrip(",;"))
    for one in of_source(made, "starter-flag-question-illustrated"):
        asked, found = shown[one.query.image or ""], shown[one.positive.image or ""]
        assert (asked.partition("/")[0], found.partition("/")[0]) == ("invented-outlined", "invented-flat")
        assert asked.partition("/")[2] == found.partition("/")[2]


def test_no_two_invented_flags_are_described_alike() -> None:
    names = [
        one.names[0][1] for one in invented_flags(StarterConfig(invented_flags=300)) if one.style == "invented-flat"
    ]
    assert 100 < len(names) == len(set(names))
