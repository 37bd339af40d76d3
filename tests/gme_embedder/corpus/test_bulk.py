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

from gme_data.errors import FoundryError
from gme_embedder.corpus.bulk import count_by_reason, embed_corpus
from gme_embedder.corpus.job import EmbedJob, ModelIdentity
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.corpus.vector_folder import SkippedRow, open_vectors
from gme_embedder.vectors.exact import search, search_shards


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


def identity(embedder, **changes) -> ModelIdentity:
    known = {"name": "tiny", "digest": "0" * 64, "inputs": embedder.settings.inputs, "dimension": embedder.dimension}
    return ModelIdentity(**{**known, **changes})


def embed(embedder, corpus, output, *, images=None, on_error="raise", model=None, **changes):
    table = open_corpus(corpus)
    known = identify_corpus(table, skip_bad_rows=on_error == "skip")
    job = EmbedJob(corpus=known, model=model or identity(embedder), **{"shard_rows": 8, **changes})
    return embed_corpus(embedder, table, output, job, images=images, on_error=on_error)


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


@pytest.fixture(scope="module")
def by_one_command(embedder, tmp_path_factory):
    """A folder with ``corpus.parquet``, ``model`` and, of one command that nothing disturbed, ``alone``.

    By a process of its own: within this one, other code decides alignment and threads, and with them last bits.
    """
    folder = tmp_path_factory.mktemp("command")
    embedder.save(folder / "model")
    rows = {"id": [str(n) for n in range(60)], "text": [f"row {n}" + " and more" * (n % 20) for n in range(60)]}
    pq.write_table(pa.table(rows), folder / "corpus.parquet")
    subprocess.run(command(folder, "alone"), check=True)
    return folder


def test_processes_share_a_folder(by_one_command):
    """Two real commands at once: every shard is made once, and the bytes are those of one command alone."""
    folder = by_one_command
    both = [subprocess.Popen(command(folder, "out", "--json"), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    reports = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(report["made"] for report in reports) == 60
    assert vector_files(folder / "out") == vector_files(folder / "alone")


def command(folder: Path, output: str, *more: str) -> list[str]:
    program = [sys.executable, "-m", "gme_cli.main", "embed", *more]
    flags = {"--input": "corpus.parquet", "--output": output, "--model": "model"}
    return [*program, *(part for flag, name in flags.items() for part in (flag, str(folder / name))), "--shard-rows=5"]


def vector_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_another_job_is_not_mixed_in(embedder, corpus, tmp_path):
    embed(embedder, corpus, tmp_path / "out")
    with pytest.raises(
        FoundryError, match=r"(?s)another job: instruction, dtype differ.*None in the folder, now 'Find"
    ):
        embed(embedder, corpus, tmp_path / "out", instruction="Find it.", dtype="float16")


def test_a_model_that_was_trained_on_starts_an_unfinished_folder_anew(embedder, corpus, rows, tmp_path, capsys):
    output, other = tmp_path / "out", tmp_path / "other"
    before = identity(embedder, digest="a" * 64)
    embed(embedder, corpus, output, model=before)
    with pytest.raises(FoundryError, match="another job: model differ"):  # a finished folder stays what it is
        embed(embedder, corpus, output)
    (output / "vectors-00001.npy").unlink()  # as if killed before its end
    np.save(output / "vectors-00000.npy", np.zeros((8, embedder.dimension), np.float32))  # what the old model gave
    with pytest.raises(FoundryError, match="another job: model, instruction differ"):
        embed(embedder, corpus, output, instruction="Find it.")
    summary = embed(embedder, corpus, output)
    assert (summary.made, summary.shards_before) == (20, 0)
    assert "tiny has changed since" in capsys.readouterr().err
    embed(embedder, corpus, other)
    assert vector_files(output) == vector_files(other)


def test_bad_rows_stop_the_work_or_are_noted(embedder, tmp_path, inputs):
    table = {"id": ["a", "b", "c"], "text": ["fine", None, "fine too"], "image": [None, b"no picture", None]}
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(FoundryError, match=r"^corpus.parquet, row 1, id 'b': .*not a readable picture"):
        embed(embedder, path, tmp_path / "strict")
    summary = embed(embedder, path, tmp_path / "out", on_error="skip")
    assert (summary.made, summary.skipped) == (2, 1)
    ((ids, vectors),) = open_vectors(tmp_path / "out")
    assert ids == ["a", "c"]
    assert len(vectors) == 2
    (note,) = json.loads((tmp_path / "out" / "skipped-00000.json").read_text())
    assert (note["id"], note["row"]) == ("b", "corpus.parquet, row 1")
    assert "not a readable picture" in note["reason"]
    ((reason, kind),) = summary.reasons.items()
    assert "not a readable picture" in reason
    assert (kind.count, kind.first.split(": ")[0]) == (1, "corpus.parquet, row 1, id 'b'")


@pytest.mark.parametrize("columns", [{"name": ["x"]}, {"id": ["x"], "txt": ["y"]}])
def test_a_table_without_the_columns_is_refused(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "corpus.parquet")
    with pytest.raises(FoundryError, match="expected columns id and text"):
        open_corpus(tmp_path / "corpus.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "corpus.parquet").write_text("id,text")
    with pytest.raises(FoundryError, match="not a readable Parquet"):
        open_corpus(tmp_path / "corpus.parquet")
    with pytest.raises(FoundryError, match="No such file"):
        open_corpus(tmp_path / "nowhere")


def test_on_error_may_change_from_run_to_run(embedder, tmp_path):
    path, out = tmp_path / "corpus.parquet", tmp_path / "out"
    pq.write_table(pa.table({"id": [f"r{n}" for n in range(20)], "text": ["x"] * 13 + [None] + ["y"] * 6}), path)
    with pytest.raises(FoundryError, match=r"^corpus.parquet, row 13, id 'r13': no text, title or image"):
        embed(embedder, path, out)
    stamp = (out / "vectors-00000.npy").stat().st_mtime_ns
    summary = embed(embedder, path, out, on_error="skip")
    assert (summary.made, summary.skipped, summary.shards_before) == (11, 1, 1)
    assert (out / "vectors-00000.npy").stat().st_mtime_ns == stamp
    with pytest.raises(FoundryError, match="row 13, id 'r13'"):  # not passed over in silence
        embed(embedder, path, out)
    assert sum(len(ids) for ids, _ in open_vectors(out)) == 19  # and nothing is lost


def test_a_skipped_row_is_tried_again_by_a_run_that_skips_none(embedder, tmp_path, inputs):
    picture, out = tmp_path / "later.png", tmp_path / "out"
    pq.write_table(
        pa.table({"id": ["a", "b"], "text": ["x", "y"], "image": [None, str(picture)]}), tmp_path / "c.parquet"
    )
    assert embed(embedder, tmp_path / "c.parquet", out, on_error="skip").skipped == 1
    picture.write_bytes(png(inputs.picture()))
    summary = embed(embedder, tmp_path / "c.parquet", out)
    assert (summary.made, summary.skipped) == (2, 0)
    assert not list(out.glob("skipped-*"))


def test_a_picture_that_changed_behind_its_path_is_noticed(embedder, tmp_path, inputs):
    """Also one of the same size whose time was set back; a touched or copied one is the same picture."""
    picture, path, out = tmp_path / "flag.png", tmp_path / "corpus.parquet", tmp_path / "out"
    one, other = (png(inputs.picture()) for _ in range(2))
    size = max(len(one), len(other))
    one, other = one.ljust(size, b"\0"), other.ljust(size, b"\0")
    picture.write_bytes(one)
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["x", None], "image": [None, str(picture)]}), path)
    embed(embedder, path, out)
    before, times = vector_files(out), picture.stat()
    picture.unlink()
    picture.write_bytes(one)
    assert embed(embedder, path, out).shards_before == 1
    picture.write_bytes(other)
    os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FoundryError, match=r"corpus.parquet, row 1, id 'b': .*flag.png was sha256 \w{12} when .* now"):
        embed(embedder, path, out)
    picture.unlink()
    with pytest.raises(FoundryError, match=r"flag.png was sha256 .* gone now"):
        embed(embedder, path, out)
    assert vector_files(out) == before


def test_another_model_corpus_or_picture_id_is_another_job(embedder, tmp_path):
    path, out = tmp_path / "corpus.parquet", tmp_path / "out"
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), path)
    embed(embedder, path, out)
    with pytest.raises(FoundryError, match="another job: model differ"):
        embed(embedder, path, out, model=identity(embedder, digest="1" * 64))
    pq.write_table(pa.table({"id": ["a"], "text": ["z"]}), path)
    with pytest.raises(FoundryError, match="another job: corpus differ"):
        embed(embedder, path, out)
    (out / "job.json").unlink()
    with pytest.raises(FoundryError, match=r"holds vectors, but no job.json"):
        embed(embedder, path, out)


@pytest.mark.parametrize("name", ["ids-00001.parquet", "vectors-00001.npy"])
@pytest.mark.hardening("faults", "F23", "a dataset damaged, a shard of vectors damaged")
def test_a_damaged_shard_is_made_again(embedder, corpus, tmp_path, name, caplog):
    out = tmp_path / "out"
    embed(embedder, corpus, out)
    before = vector_files(out)
    (out / name).write_bytes(before[name][:-20])
    assert embed(embedder, corpus, out).made == 8
    assert f"{out / name} is damaged" in caplog.text
    assert vector_files(out) == before


def test_an_empty_corpus_is_an_empty_folder(embedder, tmp_path):
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), tmp_path / "c.parquet"
    )
    assert embed(embedder, tmp_path / "c.parquet", tmp_path / "out").rows == 0
    assert list(open_vectors(tmp_path / "out")) == []


def test_other_formats_give_the_same_vectors(embedder, corpus, rows, tmp_path):
    texts = [row for row in rows if row["image"] is None]
    lines = [json.dumps({"id": row["id"], "title": row["title"], "text": row["text"]}) for row in texts]
    (tmp_path / "corpus.JSONL").write_text("\n".join(lines))
    embed(embedder, tmp_path / "corpus.JSONL", tmp_path / "out")
    expected = embedder.encode([{k: row[k] for k in ("title", "text") if row[k]} for row in texts])
    np.testing.assert_allclose(
        np.concatenate([part for _, part in open_vectors(tmp_path / "out")]), expected, atol=1e-6
    )


def test_places_that_can_not_hold_vectors_are_refused(embedder, corpus, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FoundryError, match="is a file, expected a folder"):
            embed(embedder, corpus, output)
    with pytest.raises(FoundryError, match="lies inside the corpus"):
        embed(embedder, corpus, corpus / "vectors")


def test_a_corpus_that_is_damaged_in_the_middle_keeps_what_was_made(embedder, corpus, tmp_path):
    damaged = corpus / "part-1.parquet"
    whole, column = damaged.read_bytes(), pq.ParquetFile(damaged).metadata.row_group(0).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    size = column.total_compressed_size
    damaged.write_bytes(whole[:start] + b"\xff" * size + whole[start + size :])
    with pytest.raises(FoundryError, match=r"part-1.parquet, after row 0: not readable"):
        embed(embedder, corpus, tmp_path / "out")
    assert (tmp_path / "out" / "vectors-00000.npy").exists()


def test_a_corpus_that_changes_meanwhile_is_noticed(embedder, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "a", "text": "x"}\n')
    table = open_corpus(path)
    job = EmbedJob(corpus=identify_corpus(table), model=identity(embedder))

    class Rewriting:
        """The embedder, during whose work somebody writes the corpus anew."""

        def encode(self, *arguments, **options):
            os.utime(path, ns=(0, 0))
            return embedder.encode(*arguments, **options)

    with pytest.raises(FoundryError, match=r"corpus.jsonl was changed while it was embedded"):
        embed_corpus(Rewriting(), table, tmp_path / "out", job)
    assert not list((tmp_path / "out").glob("vectors-*"))


class Stumbling:
    """The embedder, with a library below it that fails over some texts as nobody foresaw."""

    def __init__(self, embedder, over: str) -> None:
        self._embedder, self._over = embedder, over

    def encode(self, items, *arguments, **options):
        if any(self._over in item["text"] for item in items):
            raise KeyError("offset 7")
        return self._embedder.encode(items, *arguments, **options)


def test_an_unforeseen_error_is_that_of_its_row(embedder, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"id": "r{n}", "text": "text {n}"}}\n' for n in range(4)))
    table = open_corpus(path)
    job = EmbedJob(corpus=identify_corpus(table), model=identity(embedder))
    with pytest.raises(FoundryError, match=r"^corpus.jsonl, line 3, id 'r2': can't be embedded: KeyError: 'offset 7'"):
        embed_corpus(Stumbling(embedder, "2"), table, tmp_path / "out", job)
    summary = embed_corpus(Stumbling(embedder, "2"), table, tmp_path / "out", job, on_error="skip")
    assert (summary.made, summary.skipped) == (3, 1)
    ((_, vectors),) = open_vectors(tmp_path / "out")
    np.testing.assert_allclose(vectors, embedder.encode(["text 0", "text 1", "text 3"]), atol=1e-6)
    with pytest.raises(KeyError):  # all of them: that is no matter of a row
        embed_corpus(Stumbling(embedder, "text"), table, tmp_path / "other", job, on_error="skip")


def test_reasons_are_counted_whatever_they_name():
    reasons = ["/a/1.png: not a readable picture (PNG).", "b 2.png: not a readable picture (PNG).", "no text"]
    rows = [SkippedRow(row=f"c.csv, line {n}", id=f"r{n}", reason=reason) for n, reason in enumerate(reasons)]
    counted = count_by_reason(rows)
    assert [kind.count for kind in counted.values()] == [2, 1]
    assert counted["no text"].first == "c.csv, line 2, id 'r2': no text"


@pytest.mark.hardening("faults", "F12", "kill -9 of gme embed")
def test_killed_and_run_again_it_ends_with_the_same_bytes(by_one_command):
    """The real command, killed once its first shard is there."""
    out = by_one_command / "killed"
    process = subprocess.Popen(command(by_one_command, "killed"), stderr=subprocess.PIPE)
    while not (out / "vectors-00001.npy").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list(out.glob("vectors-*.npy"))) < 12
    stamp = (out / "vectors-00001.npy").stat().st_mtime_ns
    done = subprocess.run(command(by_one_command, "killed"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "vectors-00001.npy").stat().st_mtime_ns == stamp
    assert vector_files(out) == vector_files(by_one_command / "alone")


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
