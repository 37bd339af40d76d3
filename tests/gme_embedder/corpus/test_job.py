"""What a folder of vectors notes of its origin, and what is refused because of it."""

from __future__ import annotations

import json

import pytest

from gme_data.errors import FoundryError
from gme_embedder.config import RELEASED, InputConfig
from gme_embedder.corpus.job import (
    JOB_FILE,
    CorpusIdentity,
    EmbedJob,
    ModelIdentity,
    read_job,
    require_comparable,
    require_same_job,
)

MODEL = ModelIdentity(name="m", digest="a" * 64, inputs=InputConfig(), dimension=4)
NOTED = EmbedJob(corpus=CorpusIdentity(files={"one.parquet": "1" * 64, "two.parquet": "2" * 64}, rows=9), model=MODEL)


def changed(job: EmbedJob = NOTED, **changes) -> EmbedJob:
    model = {name: changes.pop(name) for name in list(changes) if name in ModelIdentity.model_fields}
    return job.model_copy(update={**changes, "model": job.model.model_copy(update=model)})


def with_files(**files: str) -> EmbedJob:
    return changed(
        corpus=CorpusIdentity(files={f"{name}.parquet": digest * 64 for name, digest in files.items()}, rows=9)
    )


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (changed(digest="b" * 64), "model differ.*aaaaaaaaaaaa .'m'. in the folder, now bbbbbbbbbbbb"),
        (changed(inputs=InputConfig(max_tokens=64)), "max_tokens differ.*256 in the folder, now 64"),
        (changed(inputs=InputConfig(positions="mrope")), "positions differ.*'sequential' in the folder, now 'mrope'"),
        (changed(inputs=RELEASED), "pictures.min_image_tokens|pictures.fit: 'square' in the folder, now 'aspect'"),
        (changed(precision="bfloat16"), "precision differ.*'float32' in the folder, now 'bfloat16'"),
        (changed(instruction="Find it."), "instruction differ.*None in the folder, now 'Find it.'"),
        (changed(dtype="float16"), "dtype differ"),
        (
            with_files(one="1", two="3"),
            "two.parquet: sha256 222222222222 when it was embedded, now sha256 333333333333",
        ),
        (with_files(one="1"), "two.parquet: sha256 222222222222 when it was embedded, now not there"),
        (with_files(one="1", three="2"), "three.parquet: not there when it was embedded"),
    ],
)
def test_what_decides_a_vector_is_refused_with_both_values(tmp_path, job, message):
    with pytest.raises(FoundryError, match=f"(?s)holds vectors of another job.*{message}"):
        require_same_job(tmp_path, NOTED, job)


def test_what_decides_no_vector_is_let_through(tmp_path):
    require_same_job(tmp_path, NOTED, changed(name="another/name", revision="c" * 40))
    with pytest.raises(
        FoundryError, match="is cut into shards of 8192 rows, not of 10; nothing else differs"
    ) as raised:
        require_same_job(tmp_path, NOTED, changed(shard_rows=10))
    assert "--shard-rows 8192" in raised.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b'{"format"', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b'{"source": "x", "model": "m float32", "instruction": null}', "another version"),
        (NOTED.model_dump_json().replace('"format":2', '"format":3').encode(), "another version"),
        (NOTED.model_dump_json().replace('"rows":9', '"rows":"9"').encode(), "corpus.rows"),
        (NOTED.model_dump_json().replace('"shard_rows":8192', '"shard_rows":8192,"more":1').encode(), "more"),
    ],
)
def test_a_record_that_is_damaged_or_of_another_version_is_refused(tmp_path, content, message):
    (tmp_path / JOB_FILE).write_bytes(content)
    with pytest.raises(FoundryError, match=message) as raised:
        read_job(tmp_path)
    assert "Embed the corpus again" in raised.value.hint


def test_a_record_comes_back(tmp_path):
    (tmp_path / JOB_FILE).write_text(NOTED.model_dump_json(indent=1))
    assert read_job(tmp_path) == NOTED
    with pytest.raises(FoundryError, match="holds no vectors"):
        read_job(tmp_path / "nowhere")


@pytest.fixture
def folders(tmp_path):
    """Writes two records; gives the folders of queries and corpus."""

    def write(queries: EmbedJob, corpus: EmbedJob):
        for name, job in (("queries", queries), ("corpus", corpus)):
            (tmp_path / name).mkdir()
            (tmp_path / name / JOB_FILE).write_text(json.dumps(json.loads(job.model_dump_json())))
        return tmp_path / "queries", tmp_path / "corpus"

    return write


def test_vectors_of_one_model_are_compared(folders):
    queries = changed(instruction="Find it.", dtype="float16", shard_rows=3, name="elsewhere")
    assert require_comparable(*folders(queries, NOTED)) == []


def test_other_precisions_are_told(folders):
    (note,) = require_comparable(*folders(changed(precision="bfloat16"), NOTED))
    assert "corpus was computed in float32, the queries in bfloat16" in note


@pytest.mark.parametrize(
    ("queries", "corpus", "message"),
    [
        (changed(digest="b" * 64), NOTED, "different models.*model: aaaaaaaaaaaa"),
        (changed(inputs=InputConfig(max_tokens=64)), NOTED, "different models.*max_tokens: 256"),
        (NOTED, changed(instruction="Find it."), "embedded with the instruction 'Find it.'.*documents have no"),
        (changed(instruction="Other."), changed(instruction="Find it."), "instruction 'Find it.'.*'Other.'"),
    ],
)
def test_vectors_of_different_spaces_are_not_compared(folders, queries, corpus, message):
    with pytest.raises(FoundryError, match=f"(?s){message}"):
        require_comparable(*folders(queries, corpus))


def test_queries_are_compared_with_queries_of_one_instruction(folders):
    same = changed(instruction="Find it.")
    assert require_comparable(*folders(same, same)) == []
