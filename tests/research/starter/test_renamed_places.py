"""Passages under other names and procedural flags match their queries and mention nothing held out."""

from __future__ import annotations

from gme_data.examples import Example, read_examples
from gme_data.images import ImageRecord
from gme_data.parquet import read_shards
from research.starter.config import StarterDataConfig
from research.starter.invented_flags import invented_flags


def of_source(built, source: str) -> list[Example]:
    return [example for example in read_examples(built.folder / "train") if example.source == source]


def test_a_passage_stands_under_the_name_that_is_asked_for(built) -> None:
    examples = of_source(built, "starter-place-question")
    names = {(example.positive.text or "").partition(".")[0] for example in examples}
    assert names == {"Moon", "Pyrenees"}  # Andorra is held out
    assert all((example.positive.text or "").partition(".")[0] in (example.query.text or "") for example in examples)
    assert all(example.split == "train" and example.batch_key.count("/") == 1 for example in examples)


def test_a_held_out_place_in_a_passage_gets_another_name(built) -> None:
    name = next(row["name"] for row in built.held_out.places if row["split"] == "test" and len(row["name"]) > 4)
    assert built.held_out.place_mentioned_in(f"South of {name}.")
    assert built.held_out.replace_places(f"South of {name}.", "Moon") == "South of Moon."


def test_a_question_about_an_invented_flag_leads_to_its_description(built) -> None:
    sources = {row["id"]: ImageRecord(**row).source for row in read_shards(built.folder / "images", "images")}
    descriptions = {
        example.query.image: example.positive.text
        for example in of_source(built, "starter-flag-description")
        if example.query.image
    }
    texts = of_source(built, "starter-flag-question")
    assert texts
    for example in texts:
        assert sources[example.query.image or ""].startswith("invented-outlined/")
        start = (example.positive.text or "").partition(" Flag: ")[2].rstrip(".")
        assert start
        assert (descriptions[example.query.image] or "").startswith(start.rstrip(",;"))
    for example in of_source(built, "starter-flag-question-illustrated"):
        query, document = sources[example.query.image or ""], sources[example.positive.image or ""]
        assert (query.partition("/")[0], document.partition("/")[0]) == ("invented-outlined", "invented-flat")
        assert query.partition("/")[2] == document.partition("/")[2]


def test_no_two_invented_flags_are_described_alike() -> None:
    names = [
        flag.names[0][1]
        for flag in invented_flags(StarterDataConfig(invented_flags=300))
        if flag.style == "invented-flat"
    ]
    assert 100 < len(names) == len(set(names))
