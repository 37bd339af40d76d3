"""`gme nearest` over folders that `gme embed` made."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
