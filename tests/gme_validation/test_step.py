"""A clean world passes; each planted defect is found, named, and shown with its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_validation.config import AtlasValidationConfig
from gme_validation.step import atlas_suites

World = Any  # conftest's TinyWorld; conftest files can't be imported by name


def test_a_clean_world_passes_and_leaves_a_verdict_and_docs(world: World, check: Callable[[], Any]) -> None:
    context = check()
    verdict = json.loads((context.staging / "verdict.json").read_text())
    assert verdict["passed"] is True
    assert verdict["suites"] == 11 + 2 * 2 * 3 + 2
    assert verdict["expectations"] > 200
    assert (context.staging / verdict["docs"]).is_file()
    assert list((context.staging / "failures").iterdir()) == []


def drop_row(rows: list[dict[str, Any]]) -> None:
    rows.pop()


def empty(rows: list[dict[str, Any]]) -> None:
    rows.clear()


def blank_out(column: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row[column] = None

    return change


def put(column: str, value: Any, row: int = 0) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row][column] = value

    return change


def double(rows: list[dict[str, Any]]) -> None:
    rows.append(dict(rows[0]))


TASK = "tasks/test/place-question-t2t"
IMAGES = "images/images-00000-of-00001"


@pytest.mark.parametrize(
    ("table", "change", "suite", "expectation"),
    [
        ("corpus/pictographs", empty, "corpus.pictographs", "RowCount"),
        ("corpus/pictographs", empty, "corpus.pictographs", "not vacuous"),
        ("corpus/imagined", put("split", "test"), "corpus.imagined", "column=split"),
        ("corpus/imagined", put("name", "TESTland0"), "corpus.imagined", "no_place"),
        ("corpus/imagined", put("flag_flat", "0" * 64), "corpus.imagined", "pictures_stored"),
        ("corpus/places", blank_out("licence"), "corpus.places", "NotBeNull"),
        ("corpus/places", put("name", None), "corpus.places", "NotBeNull"),
        ("corpus/places", put("flag_twemoji", "0" * 64), "corpus.places", "pictures_stored"),
        ("corpus/passages", put("split", "test"), "corpus.entity-groups", "in_one_split"),
        ("corpus/passages", put("split", "test"), "corpus.passages", "split_of_place"),
        ("corpus/facts", put("value", "Atlantis"), "corpus.facts", "answer_in_passage"),
        ("corpus/wordings", put("template", "what is the CAPITAL of {place}", 2), "corpus.wordings", "in_one_split"),
        (IMAGES, put("bytes", b"no picture"), "corpus.images", "decodes"),
        (IMAGES, put("bytes", b"no picture"), "corpus.images", "id_is_digest"),
        (IMAGES, put("width", 33), "corpus.images", "size_as_recorded"),
        (f"{TASK}/qrels", drop_row, "test.place-question-t2t.queries", "relevant"),
        (f"{TASK}/qrels", put("doc_id", "nobody"), "test.place-question-t2t.qrels", "document_known"),
        (f"{TASK}/qrels", put("query_id", "nobody"), "test.place-question-t2t.qrels", "query_known"),
        (f"{TASK}/qrels", put("relevance", 0), "test.place-question-t2t.qrels", "relevance"),
        (f"{TASK}/corpus", double, "test.place-question-t2t.corpus", "BeUnique"),
        (f"{TASK}/corpus", put("text", " "), "test.place-question-t2t.corpus", "modality"),
        (f"{TASK}/queries", put("entity_group", "place:trainland0"), "test.place-question-t2t.queries", "entity_split"),
        (
            "tasks/dev/place-question-t2t/corpus",
            put("entity_group", "place:testland0"),
            "dev.place-question-t2t.corpus",
            "entity_split",
        ),
        (f"{TASK}/queries", put("text", "What is the capital of Trainland0?"), "contamination.test", "query_not"),
        (f"{TASK}/queries", put("text", "What is the capital of Testland0"), "contamination.test", "wording_not"),
    ],
)  # fmt: skip
def test_a_defect_in_the_corpus_is_found(
    world: World, evaluate: Callable[[str], Any], table: str, change: Any, suite: str, expectation: str
) -> None:
    world.edit(table, change)
    assert_fails(evaluate, suite, expectation)


@pytest.mark.parametrize(
    ("change", "suite", "expectation"),
    [
        ({"entity_group": "place:testland0"}, "training.examples", "group_split"),
        ({"entity_group": "place:nowhere"}, "training.examples", "group_split"),
        ({"split": "dev"}, "training.examples", "column=split"),
        ({"task_type": "I->T"}, "training.examples", "fits_type"),
        ({"id": "I->I-trainland0"}, "training.examples", "BeUnique"),
        ({"instruction": None}, "training.examples", "NotBeNull"),
        ({"positive": Item("What is the capital of Trainland0?")}, "training.examples", "query_is_not_positive"),
        ({"negatives": (Item("About Trainland0."),)}, "training.examples", "positive_is_not_negative"),
        ({"query": Item("Where does the government of Trainland0 sit?")}, "contamination.test", "wording_not_trained"),
    ],
)
def test_a_defect_in_the_training_set_is_found(
    world: World, evaluate: Callable[[str], Any], change: dict[str, Any], suite: str, expectation: str
) -> None:
    examples = world.examples()
    examples[0] = replace(examples[0], **change)
    world.write_training(examples)
    assert_fails(evaluate, suite, expectation)


def test_a_task_type_without_examples_is_found(world: World, evaluate: Callable[[str], Any]) -> None:
    world.write_training([example for example in world.examples() if example.task_type != "IT->I"])
    assert_fails(evaluate, "training.examples", "DistinctValuesToContainSet(column=task_type)")


def test_a_test_picture_in_training_is_found_from_both_sides(world: World, evaluate: Callable[[str], Any]) -> None:
    examples = world.examples()
    position = next(i for i, example in enumerate(examples) if example.task_type == "I->I")
    examples[position] = replace(examples[position], query=Item(image=world.places[-1]["flag_openmoji"]))
    world.write_training(examples)
    assert_fails(evaluate, "training.examples", "picture_split")
    assert_fails(evaluate, "contamination.test", "picture_not_trained")


def test_training_text_full_of_a_test_query_is_found(world: World, evaluate: Callable[[str], Any]) -> None:
    long = " ".join(f"word{n}" for n in range(20))
    world.edit(f"{TASK}/queries", put("text", long))
    examples = world.examples()
    examples[0] = replace(examples[0], query=Item(f"Intro {long} outro"))
    world.write_training(examples)
    assert_fails(evaluate, "contamination.test", "ngram_share")


def test_a_loss_without_a_reason_is_found(world: World, evaluate: Callable[[str], Any]) -> None:
    path: Path = world.synthetic / "funnel.json"
    funnel = json.loads(path.read_text())
    funnel["steps"][1]["kept"] -= 1
    path.write_text(json.dumps(funnel))
    assert_fails(evaluate, "synthesis.funnel", "unexplained")


def test_a_corrupt_table_is_a_clear_error(world: World, check: Callable[[], Any]) -> None:
    (world.corpus / "corpus/facts.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(FoundryError, match=r"facts\.parquet"):
        check()


def assert_fails(evaluate: Callable[[str], Any], suite: str, expectation: str) -> None:
    """The suite fails for this reason, among others perhaps; where rows are at fault they are shown."""
    failures = [failure for failure in evaluate(suite).failures if expectation in failure.expectation]
    assert failures
    assert failures[0].rows or not failures[0].count


def test_a_failure_stops_the_chain_and_leaves_rows_and_docs(world: World, check: Callable[[], Any]) -> None:
    world.edit(f"{TASK}/qrels", put("doc_id", "nobody"))
    with pytest.raises(FoundryError, match=r"test\.place-question-t2t\.qrels.*document_known") as caught:
        check()
    assert "nobody" in str(caught.value)
    report = Path(str(caught.value.hint).split("All failing rows: ")[1].split("/failures")[0])
    verdict = json.loads((report / "verdict.json").read_text())
    assert not verdict["passed"]
    assert (report / "docs/index.html").is_file()
    reports = [json.loads(path.read_text()) for path in (report / "failures").iterdir()]
    assert any(row["doc_id"] == "nobody" for failure in reports for row in failure["rows"])


@pytest.mark.parametrize(
    ("table", "change", "suite", "expectation"),
    [
        ("corpus/passages", blank_out("text"), "corpus.passages", "ExpectColumnValuesToNotBeNull(column=text"),
        ("corpus/facts", blank_out("value"), "corpus.facts", "ExpectColumnValuesToNotBeNull(column=value"),
        ("corpus/places", blank_out("aliases"), "", ""),
        (IMAGES, blank_out("bytes"), "corpus.images", "decodes"),
        (IMAGES, empty, "corpus.images", "not vacuous"),
        (f"{TASK}/corpus", blank_out("text"), "test.place-question-t2t.corpus", "modality"),
        (f"{TASK}/queries", blank_out("text"), "test.place-question-t2t.queries", "modality"),
    ],
)
def test_a_column_of_nothing_is_a_failed_expectation(
    world: World, evaluate: Callable[[str], Any], table: str, change: Any, suite: str, expectation: str
) -> None:
    world.edit(table, change)
    if suite:
        assert_fails(evaluate, suite, expectation)
    else:
        assert not evaluate("contamination.test").failures


def test_examples_of_nothing_are_a_failed_expectation(world: World, evaluate: Callable[[str], Any]) -> None:
    shard = next((world.synthetic / "train").glob("*.parquet"))
    schema, rows = pq.read_schema(shard), pq.read_table(shard).to_pylist()
    for blank in (rows[:1], rows):
        for row in blank:
            row["query"] = {"text": None, "image": None}
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), shard)
        (failure,) = (f for f in evaluate("training.examples").failures if "items_are_something" in f.expectation)
        assert failure.count == len(blank)
        assert failure.rows[0]["id"] == blank[0]["id"]


@pytest.mark.parametrize(("table", "column"), [("corpus/facts", "value"), ("corpus/places", "aliases"), (IMAGES, "id")])
@pytest.mark.parametrize("values", [None, 7])
def test_a_column_that_is_not_there_or_of_another_type_names_file_and_column(
    world: World, table: str, column: str, values: int | None
) -> None:
    path = world.corpus / f"{table}.parquet"
    rows = pq.read_table(path)
    remaining = rows.drop_columns([column])
    pq.write_table(
        remaining if values is None else remaining.append_column(column, pa.array([values] * len(rows))), path
    )
    with pytest.raises(FoundryError, match=rf"{path.name}: column.*{column}"):
        atlas_suites(AtlasValidationConfig(), world.corpus, world.synthetic)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"steps": [{"step": "write"}]}', '{"steps": [{"step": "w", "seen": NaN, "kept": 1, "rejected": {}}]}',
     '{"steps": [{"step": "w", "seen": 1, "kept": -1, "rejected": {}}]}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_funnel_names_its_file(world: World, text: str) -> None:
    (world.synthetic / "funnel.json").write_text(text)
    with pytest.raises(FoundryError, match=r"funnel\.json: not a funnel"):
        atlas_suites(AtlasValidationConfig(), world.corpus, world.synthetic)
