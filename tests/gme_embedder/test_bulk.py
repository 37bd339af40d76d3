"""A corpus in, vectors out: equal to `encode`, in order; killed and resumed; bad rows noted or refused."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_embedder.bulk import Job, corpus_files, digest_of, embed_corpus, open_vectors
from gme_embedder.index import search, search_shards


def png(picture) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def rows(inputs):
    made = [{"id": f"t{n}", "title": None, "text": inputs.text(1 + n % 9), "image": None} for n in range(20)]
    made[3] |= {"title": "Chile"}
    made[5] |= {"image": png(inputs.picture())}
    made[6] |= {"text": None, "image": png(inputs.picture())}
    return made


@pytest.fixture
def corpus(tmp_path, rows):
    """Two files, their border within a shard."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, part in enumerate((rows[:9], rows[9:])):
        schema = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string()), ("image", pa.binary())])
        pq.write_table(pa.Table.from_pylist(part, schema=schema), folder / f"part-{number}.parquet")
    return folder


def job(corpus: Path, **changes) -> Job:
    return Job(digest_of(corpus_files(corpus)), "tiny", **{"shard_rows": 8, **changes})


def embed(embedder, corpus, output, **changes):
    return embed_corpus(embedder, corpus_files(corpus), output, job(corpus, **changes))


def test_vectors_are_those_of_encode_in_the_order_of_the_corpus(embedder, corpus, rows, tmp_path):
    summary = embed(embedder, corpus, tmp_path / "out")
    shards = list(open_vectors(tmp_path / "out"))
    assert [len(ids) for ids, _ in shards] == [8, 8, 4]
    assert [row_id for ids, _ in shards for row_id in ids] == [row["id"] for row in rows]
    expected = embedder.encode([{k: v for k, v in row.items() if k != "id" and v is not None} for row in rows])
    np.testing.assert_allclose(np.concatenate([vectors for _, vectors in shards]), expected, atol=1e-6)
    assert all(isinstance(vectors, np.memmap) for _, vectors in shards)
    assert (summary.rows, summary.made, summary.skipped, summary.shards_before) == (20, 20, 0, 0)


def test_what_is_done_is_not_done_again(embedder, corpus, tmp_path):
    out = tmp_path / "out"
    embed(embedder, corpus, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "vectors-00001.npy").unlink()
    stamp = (out / "vectors-00000.npy").stat().st_mtime_ns
    assert embed(embedder, corpus, out).made == 8
    assert (out / "vectors-00000.npy").stat().st_mtime_ns == stamp
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_shard_that_another_process_is_at_is_left_to_it(embedder, corpus, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(FoundryError, match="holds no vectors"):
        list(open_vectors(out))
    with FileLock(out / ".lock-00001"):
        summary = embed(embedder, corpus, out)
    assert (summary.made, summary.shards_elsewhere) == (12, 1)
    with pytest.raises(FoundryError, match="shards are missing"):
        list(open_vectors(out))
    assert embed(embedder, corpus, out).made == 8
    assert sum(len(ids) for ids, _ in open_vectors(out)) == 20


def test_processes_share_a_folder(embedder, tmp_path, inputs):
    """Two real commands at once: every shard is made once, and the bytes are those of one command alone."""
    embedder.save(tmp_path / "model")
    rows = {"id": [str(n) for n in range(60)], "text": [inputs.text(1 + n % 40) for n in range(60)]}
    pq.write_table(pa.table(rows), tmp_path / "corpus.parquet")
    both = [subprocess.Popen(command(tmp_path, "out", "--json"), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    reports = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(report["made"] for report in reports) == 60
    assert run(command(tmp_path, "alone")[3:]) == 0
    assert vector_files(tmp_path / "out") == vector_files(tmp_path / "alone")


def command(folder: Path, output: str, *more: str) -> list[str]:
    program = [sys.executable, "-m", "gme_cli.main", "embed", *more]
    flags = {"--input": "corpus.parquet", "--output": output, "--model": "model"}
    return [*program, *(part for flag, name in flags.items() for part in (flag, str(folder / name))), "--shard-rows=5"]


def vector_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_another_job_is_not_mixed_in(embedder, corpus, tmp_path):
    embed(embedder, corpus, tmp_path / "out")
    with pytest.raises(FoundryError, match="another job: instruction, dtype"):
        embed(embedder, corpus, tmp_path / "out", instruction="Find it.", dtype="float16")


def test_bad_rows_stop_the_work_or_are_noted(embedder, tmp_path, inputs):
    table = {"id": ["a", "b", "c"], "text": ["fine", None, "fine too"], "image": [None, b"no picture", None]}
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(FoundryError, match=r"Item 1: .*not a readable picture"):
        embed(embedder, path, tmp_path / "strict")
    summary = embed(embedder, path, tmp_path / "out", on_error="skip")
    assert (summary.made, summary.skipped) == (2, 1)
    ((ids, vectors),) = open_vectors(tmp_path / "out")
    assert ids == ["a", "c"]
    assert len(vectors) == 2
    (note,) = json.loads((tmp_path / "out" / "skipped-00000.json").read_text())
    assert note["id"] == "b"
    assert "not a readable picture" in note["reason"]


@pytest.mark.parametrize("columns", [{"name": ["x"]}, {"id": ["x"], "txt": ["y"]}])
def test_a_table_without_the_columns_is_refused(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "corpus.parquet")
    with pytest.raises(FoundryError, match="expected columns id and text"):
        corpus_files(tmp_path / "corpus.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "corpus.parquet").write_text("id,text")
    with pytest.raises(FoundryError, match="no readable parquet"):
        corpus_files(tmp_path / "corpus.parquet")
    with pytest.raises(FoundryError, match="No parquet file"):
        corpus_files(tmp_path / "nowhere")


def test_killed_and_run_again_it_ends_with_the_same_bytes(embedder, tmp_path, inputs):
    """The real command, killed once its first shard is there."""
    embedder.save(tmp_path / "model")
    rows = {"id": [str(n) for n in range(60)], "text": [inputs.text(20) for _ in range(60)]}
    pq.write_table(pa.table(rows), tmp_path / "corpus.parquet")
    out = tmp_path / "out"
    process = subprocess.Popen(command(tmp_path, "out"), stderr=subprocess.PIPE)
    while not (out / "vectors-00001.npy").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list(out.glob("vectors-*.npy"))) < 12
    stamp = (out / "vectors-00001.npy").stat().st_mtime_ns
    for name in ("out", "alone"):
        done = subprocess.run(command(tmp_path, name), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (out / "vectors-00001.npy").stat().st_mtime_ns == stamp
    assert vector_files(out) == vector_files(tmp_path / "alone")


@pytest.mark.parametrize("k", [1, 7, 40])
def test_searching_shards_equals_searching_all(k):
    random = np.random.default_rng(0)
    corpus = random.integers(-2, 3, (300, 4)).astype(np.float32)  # few values: many ties
    queries = random.integers(-2, 3, (20, 4)).astype(np.float32)
    expected = search(queries, corpus, k)
    for cuts in ([300], [100, 250], [5, 5, 299]):
        found = search_shards(queries, np.split(corpus, cuts), k)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0])
