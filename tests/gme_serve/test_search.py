"""`/v1/search` over an embedded corpus, the thumbnails, and corpora that do not fit the model."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from serving import TEXTS, data_uri, error_of, png
from support.old_vectors import forget_digests

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, ImageStore, write_images
from gme_embedder.corpus.bulk import embed_corpus
from gme_embedder.corpus.job import EmbedJob, identify_model, read_job
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.corpus.vector_folder import open_vectors
from gme_embedder.embedder import Embedder
from gme_serve.corpus import SearchCorpus, require_model

pytestmark = pytest.mark.xdist_group("serve")


def search(client, **body):
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_the_same_words_come_first(client, number):
    hits = search(client, text=TEXTS[number], k=3)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert (hits[0]["id"], hits[0]["text"], hits[0]["image"]) == (f"text-{number}", TEXTS[number], None)
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("number", range(6))
def test_the_same_picture_comes_first(client, number):
    (hit,) = search(client, image=data_uri(png(number)), k=1)
    assert hit["id"] == f"picture-{number}"
    shown = client.get(hit["image"])
    assert shown.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(shown.content)) as got, Image.open(io.BytesIO(png(number))) as expected:
        assert list(got.getdata()) == list(expected.getdata())


def test_words_and_picture_together(client):
    (hit,) = search(client, text="Chile The flag, 1.", image=data_uri(png(91)), k=1)
    assert (hit["id"], hit["title"], hit["text"]) == ("both-1", "Chile", "The flag, 1.")


def test_hits_are_those_of_an_offline_search(client, embedder, home):
    shards = list(open_vectors(home / "vectors"))
    ids, corpus = [name for names, _ in shards for name in names], np.concatenate([part for _, part in shards])
    scores = corpus @ embedder.encode(["a river"], "Find it.")[0]
    order = np.argsort(-scores, kind="stable")
    hits = search(client, text="a river", instruction="Find it.", k=100)
    assert [hit["id"] for hit in hits] == [ids[row] for row in order]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[order], atol=1e-6)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Nothing to search for"),
        ({"text": "  "}, "Nothing to search for"),
        ({"text": "x", "k": 0}, "greater than or equal to 1"),
        ({"text": "x", "k": 101}, "at most 100"),
        ({"txt": "x"}, "Did you mean 'text'?"),
        ({"image": "/etc/passwd"}, "reads no paths"),
        ({"image": data_uri(b"hello")}, "not a readable picture"),
    ],
)
def test_a_bad_query_is_refused(client, body, message):
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 400
    assert message in error_of(answer)["message"]


@pytest.mark.parametrize("row", ["0", "12", "-1", "../../corpus.parquet"])
def test_rows_without_a_picture(client, row):
    assert client.get(f"/v1/items/{row}/image").status_code == 404


def test_a_corpus_without_its_source_shows_ids(home):
    corpus = SearchCorpus.open(home / "vectors")
    vector = next(vectors for _, vectors in open_vectors(home / "vectors"))[2:3]
    (hit,) = corpus.search(np.asarray(vector), 1)
    assert (hit.id, hit.text, hit.image) == ("text-2", None, False)
    assert corpus.thumbnail(5) is None


def embed(embedder, home, source, output, *, images=None, on_error="raise", **changes):
    table = open_corpus(source)
    known = identify_corpus(table, skip_bad_rows=on_error == "skip")
    job = EmbedJob(corpus=known, model=identify_model(embedder, "model"), **changes)
    return embed_corpus(embedder, table, output, job, images=images, on_error=on_error)


def test_pictures_by_path_and_by_id(home, embedder, tmp_path, monkeypatch):
    """Both ways that `gme embed` reads; a picture that is gone is an error of its own row."""
    monkeypatch.chdir(tmp_path)
    record = ImageRecord.from_bytes(png(1, 900, 500), source="test", licence="CC0-1.0")
    write_images(tmp_path / "images", [record])
    (tmp_path / "flag.png").write_bytes(png(2))
    (tmp_path / "gone.png").write_bytes(png(3))
    rows = {
        "id": ["stored", "path", "gone"],
        "image": [record.id, "flag.png", "gone.png"],
        "text": ["x" * 900, None, None],
    }
    pq.write_table(pa.table(rows), "corpus.parquet")
    embed(embedder, home, tmp_path / "corpus.parquet", tmp_path / "vectors", images=ImageStore([tmp_path / "images"]))
    (tmp_path / "gone.png").unlink()
    corpus = SearchCorpus.open(tmp_path / "vectors", tmp_path / "corpus.parquet", tmp_path / "images")
    corpus.check_made_by(embedder)
    ((_, vectors),) = open_vectors(tmp_path / "vectors")
    (hit,) = corpus.search(np.asarray(vectors[:1]), 1)
    assert (hit.id, len(hit.text), hit.text[-1]) == ("stored", 400, "…")
    assert Image.open(io.BytesIO(corpus.thumbnail(0))).size == (384, 213)
    assert Image.open(io.BytesIO(corpus.thumbnail(1))).size == (80, 60)
    with pytest.raises(FoundryError, match="picture of row 2 can't be read"):
        corpus.thumbnail(2)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_each_hit_shows_its_own_row_whatever_the_tables(home, embedder, tmp_path):
    """Two formats in sub-folders, numbers as ids, rows that were skipped and a line that can't be read."""
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    rows = [{"id": n, "text": f"place {n} {'river ' * n}", "title": None} for n in range(6)]
    images = pa.array([None, {"bytes": png(5), "path": "5.png"}])
    pq.write_table(pa.table({"id": [7, 8], "text": ["seven", None], "image": images}), source / "a.parquet")
    write_jsonl(source / "b" / "b.jsonl", [*rows[:3], {"id": 30}, {"id": 31, "text": {}}, *rows[3:]])
    with (source / "b" / "b.jsonl").open("a") as lines:
        lines.write("{torn\n")
    summary = embed(embedder, home, source, tmp_path / "vectors", on_error="skip", shard_rows=4)
    assert (summary.made, summary.skipped) == (8, 3)
    corpus = SearchCorpus.open(tmp_path / "vectors", source)
    corpus.check_made_by(embedder)
    queries = embedder.encode([row["text"] for row in rows])
    hits = [corpus.search(query[None], 1)[0] for query in queries]
    assert [(hit.id, hit.text) for hit in hits] == [(str(row["id"]), " ".join(row["text"].split())) for row in rows]
    (hit,) = corpus.search(embedder.encode([{"image": png(5)}]), 1)
    assert (hit.id, hit.image, hit.text) == ("8", True, None)
    assert Image.open(io.BytesIO(corpus.thumbnail(hit.row))).size == (80, 60)


def test_a_table_may_be_called_otherwise_than_when_it_was_embedded(home, embedder, tmp_path):
    write_jsonl(tmp_path / "c.jsonl", [{"id": "a"}, {"id": "b", "text": "Lima"}])
    embed(embedder, home, tmp_path / "c.jsonl", tmp_path / "vectors", on_error="skip")
    (tmp_path / "c.jsonl").rename(tmp_path / "d.jsonl")
    (hit,) = SearchCorpus.open(tmp_path / "vectors", tmp_path / "d.jsonl").search(embedder.encode(["Lima"]), 1)
    assert (hit.id, hit.text) == ("b", "Lima")


def test_a_source_whose_rows_are_not_those_of_the_vectors_is_refused(home, embedder, tmp_path):
    path, rows = tmp_path / "c.jsonl", [{"id": name, "text": f"text {name}"} for name in "abc"]
    write_jsonl(path, rows)
    embed(embedder, home, path, tmp_path / "vectors")
    changes = {
        "c.jsonl, line 2 has the id 'c', the vectors have the id 'b'": [rows[0], rows[2], rows[1]],
        "no row with the id 'c'": rows[:2],
        "line 4 has the id 'd', the vectors have no further row": [*rows, {"id": "d", "text": "x"}],
        "c.jsonl was changed since it was embedded": [rows[0], {"id": "b", "text": "another"}, rows[2]],
        "line 2 has the id 'a'": [rows[0], rows[0], rows[2]],
    }
    for message, changed in changes.items():
        write_jsonl(path, changed)
        with pytest.raises(FoundryError, match=message):
            SearchCorpus.open(tmp_path / "vectors", path)


def test_an_empty_corpus_is_served(home, embedder, tmp_path):
    write_jsonl(tmp_path / "c.jsonl", [])
    embed(embedder, home, tmp_path / "c.jsonl", tmp_path / "vectors")
    corpus = SearchCorpus.open(tmp_path / "vectors", tmp_path / "c.jsonl")
    corpus.check_made_by(embedder)
    assert corpus.search(embedder.encode(["x"]), 5) == []


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_tables_may_be_written_anew_while_they_are_served(home, embedder, tmp_path, suffix):
    """Hits and pictures stay those of the vectors, until there are vectors of the new tables."""
    path, picture = tmp_path / f"c.{suffix}", tmp_path / "a.png"
    picture.write_bytes(png(1))
    rows = [{"id": name, "text": f"text {name} " + "x" * 5000, "image": str(picture)} for name in "ab"]
    write_jsonl(path, rows) if suffix == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), path)
    embed(embedder, home, path, tmp_path / "vectors")
    corpus = SearchCorpus.open(tmp_path / "vectors", path)
    size = path.stat().st_size
    with path.open("r+b") as handle:  # in place: what has the file open meets the new bytes
        handle.write(b"PAR1" + b"\xff" * (size - 8))
    hits = corpus.search(embedder.encode([row["text"] for row in rows])[1:], 2)
    assert [(hit.id, hit.text[:6]) for hit in hits] == [("b", "text b"), ("a", "text a")]
    assert corpus.thumbnail(0)
    picture.write_bytes(png(2))
    with pytest.raises(FoundryError, match="picture of row 0 was changed since it was embedded"):
        corpus.thumbnail(0)


def serve(monkeypatch, home, capsys, *arguments: str) -> str:
    """What a start that must fail says."""
    monkeypatch.chdir(home)
    assert run(["serve", "--model", "./model", "--port", "0", *arguments]) == 2
    return capsys.readouterr().err


def test_vectors_of_another_model_are_refused(monkeypatch, home, capsys, tmp_path):
    shutil.copytree(home / "vectors", tmp_path / "vectors")
    record = tmp_path / "vectors" / "job.json"
    job = json.loads(record.read_text())
    record.write_text(json.dumps({**job, "model": {**job["model"], "name": "acme/other", "digest": "f" * 64}}))
    output = serve(monkeypatch, home, capsys, "--corpus", str(tmp_path / "vectors"))
    assert "made by another model than is served" in output
    assert "ffffffffffff ('acme/other') in the folder, now" in output
    record.write_text("{}")
    assert "job.json was written by another version" in serve(
        monkeypatch, home, capsys, "--corpus", str(tmp_path / "vectors")
    )


def test_a_model_is_known_by_its_content_and_settings(home, embedder, tmp_path):
    shutil.copytree(home / "model", tmp_path / "elsewhere")
    job = read_job(home / "vectors")
    require_model(home / "vectors", job, identify_model(Embedder.load(tmp_path / "elsewhere"), "elsewhere"))
    settings = json.loads((tmp_path / "elsewhere" / "gme.json").read_text())
    settings["inputs"]["max_tokens"] = 64
    (tmp_path / "elsewhere" / "gme.json").write_text(json.dumps(settings))
    other = identify_model(Embedder.load(tmp_path / "elsewhere"), "model")
    with pytest.raises(FoundryError, match=r"(?s)model: .* in the folder, now .*max_tokens: 256 in the folder, now 64"):
        require_model(home / "vectors", job, other)


def test_vectors_that_are_damaged_are_found_out(home, embedder, tmp_path):
    """By their digest; in a folder without, by the first row where the source is there, and if they are not finite."""
    shutil.copytree(home / "vectors", tmp_path / "vectors")
    path = tmp_path / "vectors" / "vectors-00000.npy"
    vectors = np.load(path)
    np.save(path, np.roll(vectors, 1, axis=1))
    with pytest.raises(FoundryError, match="damaged or another file"):
        SearchCorpus.open(tmp_path / "vectors")
    forget_digests(tmp_path / "vectors")
    with pytest.raises(FoundryError, match="gives 'text-0' another vector"):
        SearchCorpus.open(tmp_path / "vectors", home / "corpus.parquet").check_made_by(embedder)
    np.save(path, np.where(np.arange(len(vectors))[:, None] == 2, np.float32(np.nan), vectors))
    with pytest.raises(FoundryError, match=r"vectors-00000.npy is damaged: the vector of 'text-2' is not finite"):
        SearchCorpus.open(tmp_path / "vectors")


def test_other_mistakes_at_the_start(monkeypatch, home, capsys, tmp_path):
    pq.write_table(pa.table({"id": ["text-0"], "text": ["x"]}), tmp_path / "other.parquet")
    corpus = ("--corpus", "vectors")
    assert "holds no vectors" in serve(monkeypatch, home, capsys, "--corpus", str(tmp_path))
    output = serve(monkeypatch, home, capsys, *corpus, "--source", str(tmp_path / "other.parquet"))
    assert "has no row with the id 'text-1'" in output
    assert "--source needs --corpus" in serve(monkeypatch, home, capsys, "--source", "corpus.parquet")
    assert "--images needs --source" in serve(monkeypatch, home, capsys, *corpus, "--images", "images")
