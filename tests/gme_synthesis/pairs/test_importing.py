"""Pairs in the layouts that people have become examples and held-out tasks; what is wrong with a row names the row."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.chains import PAIRS
from gme_cli.main import run
from gme_data.cells import CellError
from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.images import ImageStore
from gme_data.items import Item
from gme_data.steps import PlannedStep, execute
from gme_data.tasks import list_tasks, load_task
from gme_synthesis.pairs.config import PairsConfig
from gme_synthesis.pairs.layouts import PairSide, layout_of, reader_of

TEVATRON = {
    "query_id": "1",
    "query": "capital of France",
    "positive_passages": [{"docid": "7", "title": "France", "text": "Paris is its capital."}],
    "negative_passages": [{"docid": "8", "title": "", "text": "Rome."}, {"docid": "9", "text": "Bern."}],
}
SWIFT = {
    "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "<image>what is it?"}],
    "images": ["red.png"],
    "positive_messages": [[{"role": "user", "content": "a red square"}]],
    "positive_images": [[]],
    "negative_messages": [[{"role": "user", "content": "<image>"}]],
    "negative_images": [["blue.png"]],
}
MMEB = {
    "qry": "<|image_1|>\nFind its twin.",
    "qry_image_path": "red.png",
    "pos_text": "<|image_1|>\n",
    "pos_image_path": "blue.png",
    "neg_text": "",
    "neg_image_path": "",
}
M_BEIR = {
    "qid": "1:9",
    "query_txt": "a red thing",
    "query_img_path": None,
    "query_modality": "text",
    "pos_cand_list": [{"did": "1:1"}],
    "neg_cand_list": [{"did": "1:2"}],
}
COLUMNS = {"anchor": "capital of France", "positive": "Paris", "negative_1": "Rome", "negative_2": ""}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "blue", "green"):
        Image.new("RGB", (32, 32), colour).save(folder / f"{colour}.png")
    return folder


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def imported(workspace: Path, **settings: Any) -> Path:
    config = PairsConfig.model_validate({"dev": 0, "test": 0, **settings})
    return execute(PlannedStep(PAIRS, config.sealed(), {}), workspace).folder


@pytest.mark.parametrize(
    ("row", "task_type", "query", "positive", "negatives"),
    [
        (COLUMNS, "T->T", "capital of France", "Paris", ["Rome"]),
        (TEVATRON, "T->T", "capital of France", "France Paris is its capital.", ["Rome.", "Bern."]),
        (SWIFT, "IT->T", "what is it?", "a red square", []),
        (MMEB, "IT->I", "Find its twin.", None, []),
        ({"query": "a blue thing", "positive_image": "blue.png", "negative_image": ["red.png"]}, "T->I",
         "a blue thing", None, [None]),
    ],
    ids=["sentence-transformers", "tevatron", "ms-swift", "mmeb", "pictures in columns"],
)  # fmt: skip
def test_each_layout_is_told_by_its_names(
    tmp_path: Path, pictures: Path, row: Any, task_type: str, query: str, positive: str, negatives: list[str]
) -> None:
    folder = imported(tmp_path, pairs=write_lines(tmp_path / "p.jsonl", [row]), pictures=pictures)
    (example,) = read_examples(folder / "train")
    assert (example.task_type, example.query.text, example.positive.text) == (task_type, query, positive)
    assert [item.text for item in example.negatives] == negatives, "negatives are of the positive's modality"
    store = ImageStore([folder / "images"])
    assert all(item.image in store for item in (example.query, example.positive) if item.image)


def test_m_beir_names_documents_of_a_pool(tmp_path: Path, pictures: Path) -> None:
    pool = [
        {"did": "1:1", "txt": None, "img_path": "red.png", "modality": "image"},
        {"did": "1:2", "txt": "a tale", "img_path": "blue.png", "modality": "image,text"},
    ]
    query: dict[str, Any] = dict(M_BEIR)
    given = {"pairs": write_lines(tmp_path / "q.jsonl", [query]), "pictures": pictures}
    candidates = write_lines(tmp_path / "pool.jsonl", pool)
    (example,) = read_examples(imported(tmp_path, **given, layout="m-beir", candidates=candidates) / "train")
    assert (example.task_type, example.negatives) == ("T->I", ())
    query["pos_cand_list"] = ["1:3"]
    write_lines(tmp_path / "q.jsonl", [query])
    with pytest.raises(FoundryError, match=r"q\.jsonl, line 1: `pos_cand_list` names '1:3'"):
        imported(tmp_path, **given, candidates=candidates)
    with pytest.raises(FoundryError, match="names documents by id"):
        imported(tmp_path, **given)


def test_a_table_of_texts_has_scores_as_texts(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("query,positive,score\nq1,yes,1\nq2,no,0\nq3,very,2\n")
    folder = imported(tmp_path, pairs=tmp_path / "p.csv")
    assert {example.query.text for example in read_examples(folder / "train")} == {"q1", "q3"}


def test_parquet_with_pictures_inside_and_columns_of_other_names(tmp_path: Path) -> None:
    drawn = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(drawn, "PNG")
    rows = {"q": ["red?", "again?"], "img": [{"bytes": drawn.getvalue(), "path": None}] * 2, "grade": [2, 0]}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    columns = {"query": "q", "positive_picture": "img", "score": "grade"}
    folder = imported(tmp_path, pairs=tmp_path / "p.parquet", columns=columns)
    (example,) = read_examples(folder / "train")
    assert example.query == Item("red?")
    assert example.positive.image in ImageStore([folder / "images"])
    assert Counter(json.loads((folder / "summary.json").read_text())["rejects"][0])["rows"] == 1, "grade 0 is told"


BAD = [
    ({"anchor": "", "positive": "x"}, "empty-query", "line 2: no query"),
    ({"anchor": "x"}, "empty-positive", "line 2: no positive"),
    ({"anchor": "x", "positive": ""}, "empty-positive", "line 2: no positive"),
    ({"anchor": "x", "positive": {"a": 1}}, "not-a-text", "line 2: expected a text"),
    ({"anchor": "x", "positive_image": "rde.png"}, "picture-not-found", "Did you mean 'red.png'"),
    ({"anchor": "x", "positive": "y", "score": 0.5}, "bad-score", "score: expected a whole number"),
    ("not an object", "wrong-shape", "line 2"),
]


@pytest.mark.parametrize(("row", "reason", "message"), BAD, ids=[reason for _, reason, _ in BAD])
def test_a_bad_row_stops_the_import_by_file_and_line_or_is_counted(
    tmp_path: Path, pictures: Path, row: Any, reason: str, message: str
) -> None:
    given = {"pairs": write_lines(tmp_path / "p.jsonl", [COLUMNS, row]), "pictures": pictures}
    with pytest.raises(FoundryError) as refused:
        imported(tmp_path, **given)
    assert message in str(refused.value)
    assert "skip_bad" in str(refused.value.hint)
    folder = imported(tmp_path, **given, skip_bad=True)
    assert len(read_examples(folder / "train")) == 1
    (told,) = json.loads((folder / "summary.json").read_text())["rejects"]
    assert told["rows"] == 1
    if reason != "wrong-shape":
        assert told["reason"] == reason


HOSTILE = [None, [], {}, 0, -1, 1.5, True, float("nan"), "", " ", [[]], [None], {"a": {}}, [{"content": 3}], 10**30]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a nested value."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], by)
    return copied


@pytest.mark.parametrize("row", [COLUMNS, TEVATRON, SWIFT, MMEB, {**M_BEIR, "score": 1}], ids=str)
def test_a_value_of_any_kind_in_any_place_is_a_pair_or_a_bad_cell(row: Any) -> None:
    tried = 0
    reader = reader_of(layout_of(row), {}, {"1:1": PairSide("x", None), "1:2": PairSide("y", None)})
    for path in list(places(row))[1:]:
        for value in HOSTILE:
            tried += 1
            with contextlib.suppress(CellError):
                pair = reader(replaced(row, path, value))
                assert all(isinstance(part.text, str) for part in (pair.query, *pair.positives, *pair.negatives))
    assert tried > 40


def test_what_is_held_out_is_not_trained_on_and_stays_held_out_as_pairs_are_added(tmp_path: Path) -> None:
    rows = [{"query": f"q{n}", "positive": f"d{n % 50}", "entity": f"e{n % 40}"} for n in range(400)]
    given = {"dev": 0.1, "test": 0.2, "pairs": tmp_path / "p.jsonl"}
    write_lines(tmp_path / "p.jsonl", rows[:300])
    folder = imported(tmp_path, **given)
    asked = {
        split: {
            query.entity_group for path in list_tasks(folder / "tasks" / split) for query in load_task(path).queries
        }
        for split in ("dev", "test")
    }
    trained = {example.entity_group for example in read_examples(folder / "train")}
    assert asked["dev"]
    assert asked["test"]
    assert not trained & (asked["dev"] | asked["test"])
    assert not asked["dev"] & asked["test"]
    task = load_task(list_tasks(folder / "tasks" / "test")[0])
    assert task.card.subset == "unseen"
    assert set(task.qrels) == {query.id for query in task.queries}

    write_lines(tmp_path / "p.jsonl", rows)
    later = load_task(list_tasks(imported(tmp_path, **given) / "tasks" / "test")[0])
    assert {query.id for query in task.queries} <= {query.id for query in later.queries}


def test_equal_rows_count_once_and_several_positives_are_several_answers(tmp_path: Path) -> None:
    rows = [{"query": "q", "positive": ["a", "b"]}, {"query": "q", "positive": ["a", "b"]}, {"query": "r", "pos": "c"}]
    folder = imported(tmp_path, pairs=write_lines(tmp_path / "p.jsonl", rows))
    assert [example.positive.text for example in read_examples(folder / "train")] == ["a", "b", "c"]
    assert len({example.id for example in read_examples(folder / "train")}) == 3


def test_a_held_out_task_asks_with_the_instruction_of_its_rows(tmp_path: Path, pictures: Path) -> None:
    rows = [{"query": f"q{n}", "positive": f"d{n}", "instruction": "Answer."} for n in range(40)]
    rows += [{"query": f"q{n}", "positive_picture": "red.png"} for n in range(40)]
    folder = imported(tmp_path, pairs=write_lines(tmp_path / "p.jsonl", rows), pictures=pictures, test=0.4)
    tasks = [load_task(path).card for path in list_tasks(folder / "tasks" / "test")]
    default = PairsConfig().instruction
    assert {card.task_type: card.instruction for card in tasks} == {"T->T": "Answer.", "T->I": default}


def test_a_pipeline_over_pairs_is_planned_imported_and_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"query": f"What is thing {n}?", "positive": f"Thing {n} is number {n}."} for n in range(200)]
    write_lines(tmp_path / "p.jsonl", rows)
    path = tmp_path / "pairs.yaml"
    path.write_text(
        "name: things\ncorpus: {kind: pairs, pairs: p.jsonl}\n"
        "stage_1: {phases: [{name: m, steps: 1, mixture: [{source: pairs, batch_size: 4, grouped: 0}]}]}\n"
    )
    own = ["--config", str(path), "--workspace", str(tmp_path / "w")]
    assert run(["plan", *own, "--json"]) == 0
    states = json.loads(capsys.readouterr().out)
    assert [state["name"] for state in states] == ["corpus", "baselines", "validate", "train-1", "evaluate", "report"]
    for verb in (["corpus", "import"], ["validate"]):
        assert run([*verb, *own]) == 0, capsys.readouterr().err
    assert run(["synthesize", *own]) == 2
    assert "No step named 'synthesize'" in capsys.readouterr().err
