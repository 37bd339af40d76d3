"""A folder of vectors is brought to a changed corpus: what stayed is not encoded, and no reader meets a half."""

from __future__ import annotations

import json
import os
import re
import shutil
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
from support.old_vectors import forget_digests

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_embedder.config import ModelConfig
from gme_embedder.corpus.bulk import embed_corpus
from gme_embedder.corpus.job import EmbedJob, ModelIdentity, read_job
from gme_embedder.corpus.reuse import Changes
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.corpus.update import update_corpus
from gme_embedder.corpus.vector_folder import open_index, open_shards
from gme_embedder.embedder import Embedder
from gme_embedder.vectors.exact import search_shards

ROWS = {f"r{number}": f"row {number} of the corpus" for number in range(20)}


class Counting:
    """The embedder, noting the texts that it is asked for."""

    def __init__(self, embedder) -> None:
        self._embedder, self.texts = embedder, []

    def encode(self, items, *arguments, **options):
        self.texts += [item.get("text") for item in items]
        return self._embedder.encode(items, *arguments, **options)


def write(path: Path, rows: dict[str, str | None]) -> None:
    path.write_text("".join(json.dumps({"id": id_, "text": text}) + "\n" for id_, text in rows.items()))


def job_of(embedder, corpus: Path, *, on_error="raise", digest="0" * 64, **changes) -> EmbedJob:
    known = {"name": "tiny", "inputs": embedder.settings.inputs, "dimension": embedder.dimension}
    corpus = identify_corpus(open_corpus(corpus), skip_bad_rows=on_error == "skip")
    return EmbedJob(corpus=corpus, model=ModelIdentity(**known, digest=digest), **{"shard_rows": 8, **changes})


def embed(embedder, corpus: Path, output: Path, *, on_error="raise", **changes):
    job = job_of(embedder, corpus, on_error=on_error, **changes)
    return embed_corpus(embedder, open_corpus(corpus), output, job, on_error=on_error)


def update(embedder, corpus: Path, output: Path, *, on_error="raise", **changes):
    counting, job = Counting(embedder), job_of(embedder, corpus, on_error=on_error, **changes)
    summary, found = update_corpus(counting, open_corpus(corpus), output, job, on_error=on_error)
    return summary, found, counting.texts


def vectors_of(folder: Path) -> dict[str, np.ndarray]:
    return {id_: vector for shard in open_shards(folder) for id_, vector in zip(shard.ids, shard.vectors, strict=True)}


def hits(embedder, folder: Path, query: str) -> list[str]:
    shards = open_index(folder).shards
    ids = [id_ for shard in shards for id_ in shard.ids]
    _, rows = search_shards(embedder.encode([query]), [shard.vectors for shard in shards], 5)
    return [ids[row] for row in rows[0].tolist()]


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    write(path, ROWS)
    return path


@pytest.fixture
def folder(embedder, corpus, tmp_path) -> Path:
    embed(embedder, corpus, tmp_path / "vectors")
    return tmp_path / "vectors"


CHANGED = {
    "new": "quite another thing",
    **{id_: text for id_, text in ROWS.items() if id_ not in ("r3", "r17")},
    "r9": "row 9 was written anew",
    "last": "the end",
}
"""Two rows are new, one of them the first, one is changed, two are gone."""


def test_only_new_and_changed_rows_are_encoded_and_the_rest_is_kept(embedder, corpus, folder, tmp_path):
    before = {id_: vector.copy() for id_, vector in vectors_of(folder).items()}
    write(corpus, CHANGED)
    summary, changes, encoded = update(embedder, corpus, folder)
    assert encoded == [CHANGED["new"], CHANGED["r9"], CHANGED["last"]]
    assert changes == Changes(kept=17, new=2, changed=1, removed=2)
    assert (summary.rows, summary.made) == (20, 3)
    after = vectors_of(folder)
    for id_ in ROWS.keys() & CHANGED.keys() - {"r9"}:
        assert after[id_].tobytes() == before[id_].tobytes()
    embed(embedder, corpus, tmp_path / "full")
    assert read_job(folder).digest() == read_job(tmp_path / "full").digest()
    pairs = list(zip(open_shards(folder), open_shards(tmp_path / "full"), strict=True))
    assert all(mine.ids == full.ids and mine.contents == full.contents for mine, full in pairs)
    for mine, full in pairs:
        np.testing.assert_allclose(mine.vectors, full.vectors, atol=1e-6)
    for query in ("row 9", "another thing", "the end"):
        assert hits(embedder, folder, query) == hits(embedder, tmp_path / "full", query)


def test_updates_follow_each_other_and_leave_no_waste(embedder, corpus, folder):
    for rows in (CHANGED, ROWS, {"r1": ROWS["r1"]}, {}, ROWS):
        write(corpus, rows)
        _, changes, _ = update(embedder, corpus, folder)
        assert changes.kept + changes.new + changes.changed == len(rows)
        assert list(vectors_of(folder)) == list(rows)
        assert len(list(folder.glob("shards-*"))) == 1
        assert not list(folder.glob("*.npy"))
        assert not list(folder.glob("*.parquet"))


def test_nothing_changed_nothing_done(embedder, corpus, folder):
    before = (folder / "job.json").stat()
    summary, changes, encoded = update(embedder, corpus, folder)
    assert (encoded, changes, summary.made) == ([], Changes(20, 0, 0, 0), 0)
    write(corpus, CHANGED)
    update(embedder, corpus, folder)
    assert update(embedder, corpus, folder)[1] == Changes(20, 0, 0, 0)
    assert before.st_ino != (folder / "job.json").stat().st_ino


def test_a_fresh_folder_is_made_and_a_killed_one_goes_on(embedder, corpus, tmp_path):
    folder = tmp_path / "vectors"
    assert update(embedder, corpus, folder)[1] == Changes(0, 20, 0, 0)
    (folder / "vectors-00002.npy").unlink()  # as if killed before its end
    assert update(embedder, corpus, folder)[1] == Changes(16, 4, 0, 0)
    (folder / "vectors-00002.npy").unlink()
    write(corpus, CHANGED)
    _, changes, encoded = update(embedder, corpus, folder)
    assert changes == Changes(kept=14, new=5, changed=1, removed=1)  # r16, r18, r19 had no vector, nor had r17
    assert len(encoded) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "1" * 64}, "model"),
        ({"instruction": "Find it."}, "instruction"),
        ({"precision": "bfloat16"}, "precision"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_what_would_not_be_comparable_is_refused(embedder, corpus, folder, changes, message):
    write(corpus, CHANGED)
    before = (folder / "job.json").read_bytes()
    with pytest.raises(FoundryError, match=rf"can't be updated: {message} differ.*\n.*in the folder, now") as refused:
        update(embedder, corpus, folder, **changes)
    assert "anew, without --update" in refused.value.hint
    assert (folder / "job.json").read_bytes() == before


def test_another_prompt_is_refused(embedder, corpus, folder):
    write(corpus, CHANGED)
    job = job_of(embedder, corpus)
    inputs = job.model.inputs.model_copy(update={"default_instruction": "You are another."})
    job = job.model_copy(update={"model": job.model.model_copy(update={"inputs": inputs})})
    with pytest.raises(FoundryError, match="can't be updated: default_instruction differ"):
        update_corpus(embedder, open_corpus(corpus), folder, job)


def test_a_folder_of_an_earlier_version_is_refused(embedder, corpus, folder):
    forget_digests(folder)
    write(corpus, CHANGED)
    with pytest.raises(FoundryError, match="earlier version, which did not note what its rows held"):
        update(embedder, corpus, folder)


def test_one_update_at_a_time(embedder, corpus, folder):
    write(corpus, CHANGED)
    with FileLock(folder / ".lock-update"), pytest.raises(FoundryError, match="Another process updates"):
        update(embedder, corpus, folder)


def test_shards_may_be_cut_anew(embedder, corpus, folder):
    assert update(embedder, corpus, folder, shard_rows=5)[1] == Changes(20, 0, 0, 0)
    assert [len(shard.ids) for shard in open_shards(folder)] == [5, 5, 5, 5]


def test_bad_rows_are_as_in_a_full_run(embedder, corpus, folder):
    write(corpus, {**ROWS, "r4": None})
    before = (folder / "job.json").read_bytes()
    with pytest.raises(FoundryError, match=r"^corpus.jsonl, line 5, id 'r4': no text"):
        update(embedder, corpus, folder)
    assert (folder / "job.json").read_bytes() == before
    assert list(vectors_of(folder)) == list(ROWS)
    summary, changes, _ = update(embedder, corpus, folder, on_error="skip")
    assert (changes, summary.skipped) == (Changes(kept=19, new=0, changed=0, removed=1), 1)
    published = (folder / "job.json").stat().st_ino
    assert update(embedder, corpus, folder, on_error="skip")[1] == Changes(19, 0, 0, 0)
    assert (folder / "job.json").stat().st_ino == published  # a row that is still bad is no change
    corpus.write_text(corpus.read_text() + corpus.read_text().splitlines()[0])
    with pytest.raises(FoundryError, match="The id 'r0' stands twice"):
        update(embedder, corpus, folder)


def test_a_damaged_shard_is_embedded_again(embedder, corpus, folder, caplog):
    path = folder / "ids-00001.parquet"
    table = pq.read_table(path)
    ids = pa.array([id_.replace("r9", "r0") for id_ in table.column("id").to_pylist()])
    schema = table.schema
    pq.write_table(table.set_column(0, "id", ids).cast(schema), path)  # one digit of an id
    write(corpus, CHANGED)
    _, changes, _ = update(embedder, corpus, folder)
    assert "ids-00001.parquet is damaged: its rows have not the digest" in caplog.text
    assert changes.kept == 10
    assert list(vectors_of(folder)) == list(CHANGED)


def test_a_picture_that_changed_behind_its_path_is_embedded_again(embedder, inputs, tmp_path):
    corpus, folder = tmp_path / "corpus.jsonl", tmp_path / "vectors"
    for name in "ab":
        inputs.picture().save(tmp_path / f"{name}.png")
    rows = [{"id": name, "image": str(tmp_path / f"{name}.png")} for name in "ab"]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    embed(embedder, corpus, folder)
    before = vectors_of(folder)
    inputs.picture().save(tmp_path / "b.png")
    _, changes, encoded = update(embedder, corpus, folder)
    assert (changes, len(encoded)) == (Changes(kept=1, new=0, changed=1, removed=0), 1)
    after = vectors_of(folder)
    assert after["a"].tobytes() == before["a"].tobytes()
    assert np.abs(after["b"] - before["b"]).max() > 1e-3
    assert update(embedder, corpus, folder)[1] == Changes(2, 0, 0, 0)
    assert embed(embedder, corpus, folder).made == 0


class Killed(BaseException):
    """The process ends here."""


def test_killed_before_any_write_and_run_again_it_ends_with_the_same(embedder, corpus, folder, tmp_path, monkeypatch):
    """At each change of the disk in turn: what is there is the old or the new version, whole, and a rerun ends it."""
    write(corpus, CHANGED)
    shutil.copytree(folder, tmp_path / "whole")
    update(embedder, corpus, tmp_path / "whole")
    expected = {id_: vector.tobytes() for id_, vector in vectors_of(tmp_path / "whole").items()}
    real = {name: getattr(Path, name) for name in ("replace", "unlink", "mkdir")} | {"rmtree": shutil.rmtree}
    versions = set()
    for fatal in range(1000):
        victim, left = tmp_path / f"killed-{fatal}", iter(range(fatal))
        shutil.copytree(folder, victim)

        def doomed(name, left=left):
            def act(*arguments, **options):
                if next(left, None) is None:
                    raise Killed
                return real[name](*arguments, **options)

            return act

        with monkeypatch.context() as patched:
            for name in ("replace", "unlink", "mkdir"):
                patched.setattr(Path, name, doomed(name))
            patched.setattr(shutil, "rmtree", doomed("rmtree"))
            try:
                update(embedder, corpus, victim)
            except Killed:
                pass
            else:
                break
        there = vectors_of(victim)
        versions.add(tuple(there))
        assert tuple(there) in (tuple(ROWS), tuple(CHANGED))
        update(embedder, corpus, victim)
        assert list(vectors_of(victim)) == list(CHANGED)
        assert {id_: vector.tobytes() for id_, vector in vectors_of(victim).items()} == expected
        assert [path.name for path in victim.glob("shards-*")] == [read_job(victim).shards_in]
        assert not list(victim.glob("vectors-*"))
    assert fatal > 20
    assert versions == {tuple(ROWS), tuple(CHANGED)}


def test_who_reads_meets_one_version_whole(embedder, corpus, folder, monkeypatch):
    """A reader that has opened half of the shards when the folder is updated begins anew."""
    import gme_embedder.corpus.vector_folder as module

    real, opened = module.open_shard, []

    def updated_meanwhile(*arguments):
        opened.append(arguments[2])
        if len(opened) == 2:
            monkeypatch.setattr(module, "open_shard", real)
            write(corpus, CHANGED)
            update(embedder, corpus, folder)
        return real(*arguments)

    monkeypatch.setattr(module, "open_shard", updated_meanwhile)
    assert [id_ for shard in open_index(folder).shards for id_ in shard.ids] == list(CHANGED)
    assert opened == [0, 1]


@pytest.mark.hardening("faults", "F12", "kill -9 of gme embed")
def test_the_command_updates_and_can_be_killed(tmp_path, capsys):
    """The real command, killed once its second shard is there; then the same again."""
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(tmp_path / "model")
    corpus, folder = tmp_path / "corpus.jsonl", tmp_path / "vectors"
    rows = {f"r{number}": f"row {number}" + " and more" * (number % 9) for number in range(160)}
    write(corpus, rows)
    flags = ["--input", str(corpus), "--output", str(folder), "--model", str(tmp_path / "model"), "--json"]
    assert run(["embed", *flags, "--shard-rows", "4"]) == 0
    write(corpus, {id_: f"{text}!" for id_, text in rows.items()})
    command = ["embed", *flags, "--update"]
    process = subprocess.Popen([sys.executable, "-m", "gme_cli.main", *command], stderr=subprocess.PIPE)
    while not list(folder.glob("shards-*/vectors-00001.npy")):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(vectors_of(folder)) == list(rows)
    assert read_job(folder).shards_in == "."
    (staged,) = folder.glob("shards-*")
    stamp = (staged / "vectors-00001.npy").stat().st_mtime_ns
    capsys.readouterr()
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["update"] == {"kept": 0, "new": 0, "changed": 160, "removed": 0}
    assert (staged / "vectors-00001.npy").stat().st_mtime_ns == stamp
    assert open_index(folder).job.shard_rows == 4


def test_the_line_on_the_page_makes_a_folder_and_keeps_it_up_to_date(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parents[3] / "docs" / "own-corpus.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^gme (embed .*--update.*?) --config", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(tmp_path / "model")
    for texts, expected in ((["x", "y"], "0 vectors kept, 2 new"), (["x", "z"], "1 vectors kept, 0 new, 1 changed")):
        pq.write_table(pa.table({"id": ["a", "b"], "text": texts}), "passages.parquet")
        assert run([*line.split(), "--model", "./model"]) == 0
        assert f"vectors: {expected}" in capsys.readouterr().out
    assert run([*line.split(), "--model", "./model", "--instruction", "Find it."]) == 2
    assert "can't be updated: instruction differ(s)." in capsys.readouterr().err
