"""`gme nearest` over folders that `gme embed` made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.old_vectors import forget_digests

from gme_cli.main import run
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of 60 rows in several shards, and of three of them as queries."""
    folder = tmp_path_factory.mktemp("nearest")
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(folder / "model")
    texts = [f"place {number} {'river ' * (number % 7)}" for number in range(60)]
    pq.write_table(pa.table({"id": [f"d{n}" for n in range(60)], "text": texts}), folder / "corpus.parquet")
    pq.write_table(
        pa.table({"id": ["a", "b", "c"], "text": [texts[n] for n in (41, 3, 20)]}), folder / "queries.parquet"
    )
    for name in ("corpus", "queries"):
        paths = ["--input", str(folder / f"{name}.parquet"), "--output", str(folder / name)]
        assert run(["embed", *paths, "--model", str(folder / "model"), "--shard-rows", "16"]) == 0
    return folder


def nearest(folder: Path, *more: str) -> int:
    paths = ["--queries", str(folder / "queries"), "--corpus", str(folder / "corpus")]
    return run(["nearest", *paths, "--output", str(folder / "hits.parquet"), *more])


@pytest.mark.parametrize("index", ["exact", "flat", "ivf", "hnsw"])
def test_each_query_finds_itself_first(folder: Path, index: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert nearest(folder, "-k", "5", "--index", index, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["peak_gib"] > 0
    assert (told["recall"] is None) == (index == "exact")
    hits = pq.read_table(folder / "hits.parquet").to_pylist()
    assert [(hit["query"], hit["id"]) for hit in hits if hit["rank"] == 1] == [("a", "d41"), ("b", "d3"), ("c", "d20")]
    assert all(hit["score"] == pytest.approx(1, abs=1e-5) for hit in hits if hit["rank"] == 1)
    if index in ("exact", "flat"):
        assert len(hits) == 15
        assert told["recall"] in (None, 1.0)


def test_people_read_recall_and_memory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nearest(folder, "--index", "flat") == 0
    assert "recall@10 1.0000" in (said := capsys.readouterr().out)
    assert "peak memory" in said


def test_bad_requests(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nearest(folder, "-k", "0") == 2
    assert "-k 0" in capsys.readouterr().err
    assert run(["nearest", "-q", str(folder), "--corpus", str(folder), "-o", str(folder / "out")]) == 2
    assert "holds no vectors" in capsys.readouterr().err


def rewritten(folder: Path, target: Path, **changes: object) -> Path:
    """A copy of a folder of vectors whose record says something else."""
    shutil.copytree(folder, target)
    record = json.loads((target / "job.json").read_text())
    record["model"] |= changes.pop("model", {})
    (target / "job.json").write_text(json.dumps({**record, **changes}))
    return target


def refused(corpus: Path, queries: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["nearest", "-q", str(queries), "--corpus", str(corpus), "-o", str(output)]) == 2
    return capsys.readouterr().err


def test_vectors_of_two_models_are_not_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = rewritten(folder / "queries", tmp_path / "other", model={"digest": "f" * 64, "name": "m2"})
    said = refused(folder / "corpus", other, tmp_path / "hits", capsys)
    assert "hold vectors of different models" in said
    assert "ffffffffffff ('m2')" in said
    asking = rewritten(folder / "corpus", tmp_path / "asking", instruction="Find it.")
    assert "documents have no instruction" in refused(asking, folder / "queries", tmp_path / "hits", capsys)
    assert not (tmp_path / "hits").exists()


def test_another_precision_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(tmp_path / "other")
    paths = ["--input", str(folder / "queries.parquet"), "--output", other, "--model", str(folder / "model")]
    assert run(["embed", *paths, "--dtype", "bfloat16"]) == 0
    capsys.readouterr()
    arguments = ["nearest", "-q", other, "--corpus", str(folder / "corpus"), "-o", str(tmp_path / "hits")]
    assert run(arguments) == 0
    assert "computed in float32, the queries in bfloat16" in capsys.readouterr().err
    assert run([*arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 1


@pytest.mark.parametrize("index", ["exact", "flat", "ivf", "hnsw"])
def test_a_damaged_vector_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], index: str
) -> None:
    shutil.copytree(folder / "corpus", tmp_path / "corpus")
    path = tmp_path / "corpus" / "vectors-00001.npy"
    vectors = np.load(path)
    vectors[2] = np.nan
    np.save(path, vectors)
    forget_digests(tmp_path / "corpus")
    arguments = ["-q", str(folder / "queries"), "--corpus", str(tmp_path / "corpus"), "-o", str(tmp_path / "hits")]
    assert run(["nearest", *arguments, "--index", index]) == 2
    assert "vectors-00001.npy is damaged: the vector of 'd18' is not finite" in capsys.readouterr().err


@pytest.mark.parametrize("index", ["exact", "ivf"])
@pytest.mark.parametrize("side", ["corpus", "queries"])
def test_an_empty_side_gives_no_hits(folder: Path, tmp_path: Path, side: str, index: str) -> None:
    (tmp_path / "empty.csv").write_text("id,text\n")
    paths = ["--input", str(tmp_path / "empty.csv"), "--output", str(tmp_path / "empty")]
    assert run(["embed", *paths, "--model", str(folder / "model")]) == 0
    sides = {"corpus": folder / "corpus", "queries": folder / "queries", side: tmp_path / "empty"}
    arguments = [part for name, path in sides.items() for part in (f"--{name}", str(path))]
    assert run(["nearest", *arguments, "--output", str(tmp_path / "hits"), "--index", index]) == 0
    assert pq.read_table(tmp_path / "hits").num_rows == 0


def test_an_output_that_is_no_file_is_known_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path, tmp_path / "file" / "hits"):
        assert "--output" in refused(folder / "corpus", folder / "queries", output, capsys)


def test_skipped_rows_are_counted_by_reason(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "c.csv").write_text("id,text\na,x\nb,\nc,\n,y\n")
    (tmp_path / "in" / "notes.txt").write_text("no table")
    arguments = ["embed", "--output", str(tmp_path / "out"), "--model", str(folder / "model"), "--on-error", "skip"]
    assert run([*arguments, "--input", str(tmp_path / "in")]) == 0
    said = capsys.readouterr().out
    assert "1 vectors made of 4 rows, 3 rows skipped" in said
    assert "2 skipped: no text, title or image; the first: c.csv, line 3, id 'b'" in said
    assert "1 skipped: expected an id, found an empty text; the first: c.csv, line 5" in said
    assert "1 .txt (notes.txt)" in said
