"""Tasks of one's own: in the formats, types and states in which people have them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from gme_cli.main import run as gme
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, ImageStore, write_images
from gme_data.items import Item
from gme_data.tasks import load_task
from gme_embedder.embedder import Embedder
from umrb.data.loading import load_suite_task
from umrb.data.sides import unchanged
from umrb.data.task_folders import disk_datasets
from umrb.scoring.result_files import read_result
from umrb.scoring.runner import RunResult
from umrb.suite import SuiteConfig, run_suite
from umrb.systems.base import DenseSystem, Encoder, encode_with
from umrb.systems.vectors import Vectors, VectorStore

TEXTS = {"1": "a red flag", "2": "a blue river", "3": "green hills", "4": "desert sand"}
QUERIES = {"1": "red flag", "2": "river"}
QRELS = [("1", "1", 1), ("2", "2", 1)]


def write_card(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "name": folder.name, "task_type": "T->T", "metric": "ndcg_at_10", "instruction": "Find it.", "split": "test",
        "subset": "", "description": "d", "relevance": "r", "licences": ["CC0-1.0"], "queries": 2, "pool": 4, **changes,
    }  # fmt: skip
    (folder / "task.yaml").write_text(yaml.safe_dump(card))
    return folder


def write_task(
    folder: Path,
    docs: Sequence[tuple[Any, Any]] = tuple(TEXTS.items()),
    queries: Sequence[tuple[Any, Any]] = tuple(QUERIES.items()),
    qrels: Sequence[tuple[Any, Any, Any]] = tuple(QRELS),
    **card: Any,
) -> Path:
    """Only the columns that mean something, of whichever types the values have."""
    write_card(folder, **card)
    for stem, names, rows in (
        ("corpus", ("id", "text"), docs),
        ("queries", ("id", "text"), queries),
        ("qrels", ("query_id", "doc_id", "relevance"), qrels),
    ):
        columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}
        pq.write_table(pa.table(columns), folder / f"{stem}.parquet")
    return folder


def as_float(column: Sequence[str]) -> list[float]:
    return [float(value) for value in column]


def numbered(kind: Callable[[str], Any], folder: Path) -> Path:
    return write_task(
        folder,
        [(kind(id_), text) for id_, text in TEXTS.items()],
        [(kind(id_), text) for id_, text in QUERIES.items()],
        [(kind(query), kind(doc), kind(str(gain))) for query, doc, gain in QRELS],
    )


def as_beir(folder: Path) -> Path:
    write_card(folder)
    docs = [{"_id": id_, "title": "", "text": text, "metadata": {"url": "x"}} for id_, text in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)), encoding="utf-8-sig")
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": int(i), "text": t}) for i, t in QUERIES.items()))
    (folder / "qrels").mkdir()
    for split in ("dev", "test"):
        lines = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t{g if split == 'test' else 0}" for q, d, g in QRELS)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def as_csv(folder: Path) -> Path:
    write_card(folder)
    pd.DataFrame({"id": list(map(int, TEXTS)), "text": TEXTS.values()}).to_csv(folder / "corpus.CSV", index=False)
    pd.DataFrame({"id": list(map(int, QUERIES)), "text": QUERIES.values()}).to_csv(folder / "queries.csv", index=False)
    frame = pd.DataFrame(QRELS, columns=["query_id", "doc_id", "relevance"])
    frame.to_csv(folder / "qrels.tsv", sep="\t", index=False)
    return folder


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda folder: numbered(int, folder), id="whole-numbers"),
        pytest.param(lambda folder: numbered(float, folder), id="floats"),
        pytest.param(lambda folder: numbered(str, folder), id="texts"),
        pytest.param(as_beir, id="beir"),
        pytest.param(as_csv, id="csv"),
    ],
)
def test_a_task_is_the_same_in_any_format_and_type(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    task = load_task(write(tmp_path / "mine"))
    assert {doc.id: doc.item for doc in task.corpus} == {id_: Item(text) for id_, text in TEXTS.items()}
    assert {query.id: query.item for query in task.queries} == {id_: Item(text) for id_, text in QUERIES.items()}
    assert task.qrels == {"1": {"1": 1}, "2": {"2": 1}}
    (dataset,) = disk_datasets(tmp_path)
    assert load_suite_task(dataset, "mine", tmp_path).defects == ()


def test_titles_go_before_the_text_of_documents(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "t")
    rows = [{"id": "1", "title": "Flags", "text": "a red flag"}, {"id": "2", "title": None, "text": "a blue river"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "corpus.parquet")
    assert [doc.item.text for doc in load_task(folder).corpus] == ["Flags a red flag", "a blue river"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"docs": [("1", "a"), (None, "b")]}, r"corpus\.parquet, row 1: column 'id': expected an id, found nothing"),
        ({"docs": [("1", "a"), (" ", "b")]}, r"corpus\.parquet, row 1: column 'id': expected an id, found an empty"),
        ({"docs": [(1.5, "a")]}, r"corpus\.parquet, row 0: column 'id': .*found 1\.5"),
        ({"docs": [(["1"], "a")]}, r"corpus\.parquet, row 0: column 'id': .*found a list"),
        ({"docs": [("1", {"a": "b"})]}, r"corpus\.parquet, row 0: column 'text': expected a text, found an object"),
        ({"docs": [("1", True)]}, r"corpus\.parquet, row 0: column 'text': .*truth value"),
        ({"docs": [("1", b"\xff")]}, r"corpus\.parquet, row 0: column 'text': .*1 bytes that are no UTF-8"),
        ({"docs": [("1", [1, 2])] * 5}, r"row 0: .*row 1: .*row 2: .*; and 2 more rows"),
        ({"qrels": [("1", "1", 0.5)]}, r"qrels\.parquet, row 0: column 'relevance': expected a whole number.*0\.5"),
        ({"qrels": [("1", "1", None)]}, r"qrels\.parquet, row 0: column 'relevance': .*found nothing"),
        ({"qrels": [("1", "1", True)]}, r"qrels\.parquet, row 0: column 'relevance': .*found bool True"),
        ({"qrels": [("1", "1", 2**40)]}, r"qrels\.parquet, row 0: column 'relevance': .*of 32 bits"),
        ({"qrels": [("1", "1", "yes")]}, r"qrels\.parquet, row 0: column 'relevance': .*found 'yes'"),
        ({"qrels": [(None, "1", 1)]}, r"qrels\.parquet, row 0: column 'query_id': expected an id"),
    ],
)  # fmt: skip
def test_what_a_cell_can_not_be_taken_for_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_task(tmp_path / "t", **changes)
    with pytest.raises(FoundryError, match=message):
        load_task(folder)


def test_a_column_or_table_that_is_missing_or_there_twice(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "t")
    pq.write_table(pa.table({"idd": ["1"], "text": ["a"]}), folder / "corpus.parquet")
    with pytest.raises(FoundryError, match=r"no column 'id' or '_id'\. Did you mean 'idd'"):
        load_task(folder)
    pq.write_table(pa.table({"id": ["1"], "image": [b"\x89PNG"]}), folder / "corpus.parquet")
    with pytest.raises(FoundryError, match="row 0: column 'image' holds a picture; expected the id of one"):
        load_task(folder)
    (folder / "corpus.csv").write_text("id,text\n1,a\n")
    with pytest.raises(FoundryError, match=r"corpus\.csv and corpus\.parquet: which of them"):
        load_task(folder)


def reading(model: Embedder | None = None) -> Callable[[Path], Any]:
    """A system of letters; its store is the folder that it is given."""

    def encode(items: Sequence[Item], instruction: str | None, images: ImageStore | None) -> Vectors:
        del instruction, images
        counts = np.array([[(item.text or "").count(chr(97 + k)) + 0.01 for k in range(26)] for item in items])
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)

    encoder = Encoder("letters", encode_with(model, None) if model else encode)
    return lambda folder: lambda loaded: DenseSystem("letters", encoder, VectorStore(folder))


def score(tmp_path: Path, meta: Any, model: Embedder | None = None, **options: Any) -> RunResult:
    config = SuiteConfig(tasks=tmp_path / "tasks", output=tmp_path / "out", **options)
    return run_suite(config, meta, reading(model)(tmp_path / "vectors"))


DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "outside": ({"qrels": [*QRELS, ("2", "zz", 1)]}, "relevant document 'zz' of 1 queries is not in the pool"),
    "unjudged": ({"qrels": QRELS[:1]}, "query '2' has no relevant document"),
    "nobody": ({"qrels": [*QRELS, ("9", "1", 1)]}, "query '9' of the judgements is not there"),
    "again": ({"qrels": [*QRELS, ("1", "1", 2)]}, "'1 / 1' judged more than once, of which the last counts"),
    "same": ({"qrels": [*QRELS, ("1", "1", 1)]}, "'1 / 1' judged more than once, of which the last counts"),
    "twice": ({"docs": [*TEXTS.items(), ("1", "another")], "pool": 5}, "document id '1' stand(s) more than once"),
    "empty": ({"docs": [*list(TEXTS.items())[:3], ("4", None)]}, "document '4' hold(s) neither text nor picture"),
    "sizes": ({"pool": 7}, "4 document rows, 7 expected"),
}


def test_defects_refuse_a_task_and_the_flag_scores_it_and_says_so(
    tmp_path: Path, tiny: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (changes, _) in DEFECTS.items():
        write_task(tmp_path / "tasks" / name, **changes)
    write_task(tmp_path / "tasks" / "whole", qrels=[*QRELS, ("1", "3", 0), ("2", "4", -1)])
    write_task(tmp_path / "tasks" / "unreadable", docs=[("1", {"a": "b"})])
    write_task(tmp_path / "tasks" / "renamed", name="other")
    write_card(tmp_path / "tasks" / "bad-card", split="all")
    (tmp_path / "tasks" / "no-card").mkdir()
    (tmp_path / "tasks" / "no-card" / "corpus.jsonl").write_text("{}")
    tiny.save(tmp_path / "model")
    flags = ["--tasks", str(tmp_path / "tasks"), "--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]

    assert gme(["umrb", "run", *flags]) == 2
    output = capsys.readouterr().out
    assert "1 tasks scored, 1 of the suite have a result" in output
    for name, (_, defect) in DEFECTS.items():
        assert f"refused: {name}: " in output
        assert defect in output
    never = ("unreadable", "renamed", "bad-card", "no-card")
    assert all(f"refused: {name}: " in output for name in never)
    assert gme(["umrb", "verify", *flags[:2]]) == 2
    verified = capsys.readouterr().out
    assert [line.split()[1] for line in verified.splitlines() if line.startswith("✓")] == ["whole"]
    assert all(f"✗ {name} " in verified for name in (*DEFECTS, *never))

    assert gme(["umrb", "run", *flags, "--allow-defects"]) == 2  # for those that nothing can be scored of
    output = capsys.readouterr().out
    assert f"{len(DEFECTS)} tasks scored, {len(DEFECTS) + 1} of the suite have a result" in output
    (results,) = (tmp_path / "out" / "tasks" / "results").glob("*/*")
    report = (results / "report" / "report.md").read_text()
    for name, (_, defect) in DEFECTS.items():
        record = read_result(results / f"{name}.json")
        assert record is not None
        assert any(defect in line for line in record.defects)
        assert defect in report
        assert f"scored in spite of defects: {'; '.join(record.defects)}" in output


def test_results_of_other_data_are_not_taken_for_those_at_hand(tmp_path: Path, meta: Any) -> None:
    write_task(tmp_path / "tasks" / "mine")
    assert score(tmp_path, meta).scored == ("mine",)
    assert score(tmp_path, meta).scored == ()
    before = score(tmp_path, meta).records[0]
    write_task(tmp_path / "tasks" / "mine", qrels=[("1", "3", 1), ("2", "4", 1)])
    repeated = score(tmp_path, meta)
    assert repeated.scored == ("mine",)
    assert (repeated.records[0].data_digest, repeated.records[0].data_revision) != (
        before.data_digest, before.data_revision,
    )  # fmt: skip
    assert repeated.records[0].score.value != before.score.value
    write_task(tmp_path / "tasks" / "mine", qrels=[("1", "zz", 1)])
    refused = score(tmp_path, meta)
    assert refused.records == ()
    assert list(refused.refused) == ["mine"]


def test_what_a_model_can_not_take_is_named_by_id_and_stops_no_other_task(
    tmp_path: Path, meta: Any, tiny: Embedder
) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "PNG")
    half = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    (cut,) = pictures = [ImageRecord.from_bytes(half, source="s", licence="l")]
    write_images(tmp_path / "images", pictures)
    folder = write_task(tmp_path / "tasks" / "cut", images="../../images", task_type="T->IT")
    pq.write_table(
        pa.table({"id": list(TEXTS), "text": list(TEXTS.values()), "image": [None, None, cut.id, None]}),
        folder / "corpus.parquet",
    )
    write_task(tmp_path / "tasks" / "whole")
    done = score(tmp_path, meta, tiny)
    assert done.scored == ("whole",)
    assert done.refused["cut"][0].startswith("cut, documents, id '3': ")
    assert "the picture is damaged" in done.refused["cut"][0]


def test_an_instruction_that_a_model_can_not_take_refuses_its_task_alone(tmp_path: Path, meta: Any) -> None:
    write_task(tmp_path / "tasks" / "long", instruction="Too long.")
    write_task(tmp_path / "tasks" / "whole")

    def encode(items: Sequence[Item], instruction: str | None, images: ImageStore | None) -> Vectors:
        if instruction == "Too long.":
            raise FoundryError("The instruction leaves no room.", hint="Shorten it.")
        return np.eye(len(items), 5, dtype=np.float32)

    config = SuiteConfig(tasks=tmp_path / "tasks", output=tmp_path / "out")
    system = DenseSystem("strict", Encoder("strict", encode), VectorStore(tmp_path / "vectors"))
    done = run_suite(config, meta, lambda loaded: system)
    assert done.scored == ("whole",)
    assert done.refused["long"] == ("long, queries: The instruction leaves no room. Shorten it.",)


def test_pictures_that_are_not_there_or_not_what_their_id_says(tmp_path: Path, meta: Any, corpus: Path) -> None:
    store = ImageStore([corpus / "images"])
    ids = sorted(doc.item.image or "" for doc in load_task(corpus / "tasks" / "test" / "colour-t2i").corpus)
    table = pq.read_table(next((corpus / "images").glob("*.parquet"))).to_pylist()
    write_images(tmp_path / "images", [])
    wrong = [{**row, "id": "by-name"} if row["id"] == ids[0] else row for row in table]
    target = next((tmp_path / "images").glob("*.parquet"))
    pq.write_table(pa.Table.from_pylist(wrong, schema=pq.read_schema(target)), target)
    folder = write_task(tmp_path / "tasks" / "t", images="../../images", task_type="T->I")
    named = ["by-name", ids[1], "nowhere", ids[2]]
    pq.write_table(pa.table({"id": list(TEXTS), "image": named}), folder / "corpus.parquet")
    (dataset,) = disk_datasets(tmp_path / "tasks")
    loaded = load_suite_task(dataset, "t", tmp_path / "tasks")
    assert "picture 'nowhere' not in the store" in loaded.defects
    assert "picture 'by-name' in the store under an id that is not its sha256" in loaded.defects
    assert "document '1', '3' hold(s) neither text nor picture" in loaded.defects
    assert len(set(loaded.task.docs.digests(unchanged))) == 3  # vectors are never kept under a wrong name
    assert ids[1] in store


def test_verify_of_nothing_is_not_green(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tasks").mkdir()
    assert gme(["umrb", "verify", "--tasks", str(tmp_path / "tasks")]) == 2
    assert "No tasks in" in capsys.readouterr().err
    write_task(tmp_path / "tasks" / "t", docs=[])
    assert gme(["umrb", "verify", "--tasks", str(tmp_path / "tasks")]) == 2
    assert "it has no document" in capsys.readouterr().out
    assert gme(["umrb", "verify", "--tasks", str(tmp_path / "tasks" / "t")]) == 2
    assert "Give the folder above this one" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    assert gme(["umrb", "verify", "-d", "SciFact", "--data", str(tmp_path / "data")]) == 2
