"""Folders of vectors read back: whole ones come as they are, damaged ones are named and never end in a crash."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.old_vectors import forget_digests

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_embedder.config import InputConfig
from gme_embedder.corpus.job import JOB_FILE, CorpusIdentity, EmbedJob, ModelIdentity
from gme_embedder.corpus.vector_folder import ids_schema, open_shards, open_vectors, rows_digest
from gme_embedder.vectors.npy import open_npy, write_npy

MODEL = ModelIdentity(name="m", digest="a" * 64, inputs=InputConfig(), dimension=4)


JOB_OF_FIVE = EmbedJob(corpus=CorpusIdentity(files={".": "1" * 64}, rows=5), model=MODEL, shard_rows=2)


def write_ids(path: Path, ids: list[str], job: EmbedJob = JOB_OF_FIVE) -> None:
    digest = sha256_file(path.with_name(path.stem.replace("ids", "vectors") + ".npy"))
    rows = [{"id": row_id, "content": sha256(row_id.encode()).digest()} for row_id in ids]
    schema = ids_schema(job, digest, rows_digest(ids, [row["content"] for row in rows]))
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five rows in shards of two, the fourth of them skipped."""
    (tmp_path / JOB_FILE).write_text(JOB_OF_FIVE.model_dump_json())
    for number, ids in enumerate((["a", "b"], ["c"], ["e"])):
        write_npy(tmp_path / f"vectors-{number:05d}.npy", np.eye(len(ids), 4, dtype=np.float32) + number)
        write_ids(tmp_path / f"ids-{number:05d}.parquet", ids)
    note = {"row": "corpus.parquet, row 3", "id": "d", "reason": "no text"}
    (tmp_path / "skipped-00001.json").write_text(json.dumps([note]))
    return tmp_path


def test_what_was_written_comes_back(folder):
    shards = list(open_vectors(folder))
    assert [ids for ids, _ in shards] == [["a", "b"], ["c"], ["e"]]
    assert all(isinstance(vectors, np.memmap) for _, vectors in shards)


def test_a_shard_of_another_job_is_not_taken_for_one_of_this(folder):
    """Equal ids, rows and sizes: only the job that the shard carries tells that another model made it."""
    other = JOB_OF_FIVE.model_copy(update={"model": MODEL.model_copy(update={"digest": "b" * 64})})
    write_ids(folder / "ids-00002.parquet", ["e"], other)
    with pytest.raises(FoundryError, match=r"vectors-00002\.npy was made by another job"):
        list(open_vectors(folder))


def test_vectors_of_the_same_shape_are_not_taken_for_those_that_were_made(folder):
    """Two shards exchanged, one number changed: shape, type and job are as they should be."""
    first, second = (folder / f"vectors-{number:05d}.npy" for number in (1, 2))
    exchanged = first.read_bytes(), second.read_bytes()
    second.write_bytes(exchanged[0])
    first.write_bytes(exchanged[1])
    with pytest.raises(FoundryError, match=r"vectors-00001\.npy is damaged or another file"):
        list(open_vectors(folder))
    first.write_bytes(exchanged[0])
    second.write_bytes(exchanged[1][:-1] + b"\x3f")
    with pytest.raises(FoundryError, match=r"vectors-00002\.npy is damaged or another file"):
        list(open_vectors(folder))


def _objects(path: Path) -> None:
    np.save(path, np.array([{}, []], dtype=object), allow_pickle=True)


def _claims_more(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"(2, 4)", b"(9, 4)"))


def _other_rows(path: Path) -> None:
    np.save(path, np.eye(3, 4, dtype=np.float32))


DAMAGES = {
    "vectors-00000.npy": {
        "emptied": lambda path: path.write_bytes(b""),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "header cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
        "header torn": lambda path: path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': )(")),
        "archive": lambda path: path.write_bytes(b"PK\x03\x04" + path.read_bytes()),
        "pickle": lambda path: path.write_bytes(b"\x80\x04N."),
        "objects": _objects,
        "claims more": _claims_more,
        "other rows": _other_rows,
        "other size": lambda path: np.save(path, np.eye(2, 3, dtype=np.float32)),
        "other dtype": lambda path: np.save(path, np.eye(2, 4, dtype=np.float16)),
        "one axis": lambda path: np.save(path, np.ones(2, np.float32)),
        "gone": lambda path: path.unlink(),
    },
    "vectors-00002.npy": {"gone, the last": lambda path: path.unlink()},
    "ids-00000.parquet": {
        "emptied": lambda path: path.write_bytes(b""),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
        "torn": lambda path: path.write_bytes(b"PAR1" + b"\x00" * 80 + path.read_bytes()[84:]),
        "gone": lambda path: path.unlink(),
        "other column": lambda path: pq.write_table(pa.table({"name": ["a", "b"]}), path),
        "fewer": lambda path: write_ids(path, ["a"]),
    },
    "skipped-00001.json": {
        "cut": lambda path: path.write_text("[{"),
        "no list": lambda path: path.write_text("3"),
        "gone": lambda path: path.unlink(),
    },
}


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, all_ in DAMAGES.items() for damage in all_])
def test_damage_is_named(folder, name, damage):
    DAMAGES[name][damage](folder / name)
    with pytest.raises(FoundryError) as raised:
        list(open_vectors(folder))
    number = name.split("-")[1].split(".")[0]
    assert number in str(raised.value) or f"number {int(number)}" in str(raised.value)
    assert "gme embed` again" in raised.value.hint


def test_a_vector_that_is_not_finite_is_named(folder):
    forget_digests(folder)
    write_npy(folder / "vectors-00000.npy", np.array([[1, 0, 0, 0], [0, np.nan, 0, 0]], np.float32))
    first, *_ = open_shards(folder)
    with pytest.raises(FoundryError, match=r"vectors-00000.npy is damaged: the vector of 'b' is not finite"):
        first.require_finite()


def test_an_empty_corpus_is_an_empty_folder(tmp_path):
    job = EmbedJob(corpus=CorpusIdentity(files={".": "1" * 64}, rows=0), model=MODEL)
    (tmp_path / JOB_FILE).write_text(job.model_dump_json())
    assert list(open_vectors(tmp_path)) == []


def test_a_file_that_is_not_there_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_npy(tmp_path / "nowhere.npy")
