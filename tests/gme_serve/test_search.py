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

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, write_images
from gme_embedder.bulk import open_vectors
from gme_serve.corpus import Corpus, read_origin, require_model

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
    corpus = Corpus.open(home / "vectors")
    vector = next(vectors for _, vectors in open_vectors(home / "vectors"))[2:3]
    (hit,) = corpus.search(np.asarray(vector), 1)
    assert (hit.id, hit.text, hit.image) == ("text-2", None, False)
    assert corpus.thumbnail(5) is None


def test_pictures_by_path_and_by_id(home, tmp_path, monkeypatch):
    """Both ways that `gme embed` reads; a picture that is gone is an error of its own row."""
    monkeypatch.chdir(tmp_path)
    record = ImageRecord.from_bytes(png(1, 900, 500), source="test", licence="CC0-1.0")
    write_images(tmp_path / "images", [record])
    (tmp_path / "flag.png").write_bytes(png(2))
    rows = {
        "id": ["stored", "path", "gone"],
        "image": [record.id, "flag.png", "gone.png"],
        "text": ["x" * 900, None, None],
    }
    pq.write_table(pa.table(rows), "corpus.parquet")
    shutil.copytree(home / "vectors", "vectors")
    for path in [*(tmp_path / "vectors").glob("*-00001.*")]:
        path.unlink()
    pq.write_table(pa.table({"id": rows["id"]}), "vectors/ids-00000.parquet")
    np.save("vectors/vectors-00000.npy", np.eye(3, dtype=np.float32))
    corpus = Corpus.open(tmp_path / "vectors", tmp_path / "corpus.parquet", tmp_path / "images")
    (hit,) = corpus.search(np.eye(3, dtype=np.float32)[:1], 1)
    assert (hit.id, len(hit.text), hit.text[-1]) == ("stored", 400, "…")
    assert Image.open(io.BytesIO(corpus.thumbnail(0))).size == (384, 213)
    assert Image.open(io.BytesIO(corpus.thumbnail(1))).size == (80, 60)
    with pytest.raises(FoundryError, match="picture of 'gone' can't be read"):
        corpus.thumbnail(2)


def serve(monkeypatch, home, capsys, *arguments: str) -> str:
    """What a start that must fail says."""
    monkeypatch.chdir(home)
    assert run(["serve", "--model", "./model", "--port", "0", *arguments]) == 2
    return capsys.readouterr().err


def test_vectors_of_another_model_are_refused(monkeypatch, home, capsys, tmp_path):
    shutil.copytree(home / "vectors", tmp_path / "vectors")
    job = json.loads((tmp_path / "vectors" / "job.json").read_text())
    (tmp_path / "vectors" / "job.json").write_text(json.dumps({**job, "model": "acme/other bfloat16"}))
    said = serve(monkeypatch, home, capsys, "--corpus", str(tmp_path / "vectors"))
    assert "made by another model: 'acme/other'; served is './model'" in said
    (tmp_path / "vectors" / "job.json").write_text("{}")
    assert "job.json is damaged" in serve(monkeypatch, home, capsys, "--corpus", str(tmp_path / "vectors"))


def test_a_model_folder_may_be_called_by_any_of_its_paths(monkeypatch, home):
    monkeypatch.chdir(home)
    require_model(home / "vectors", read_origin(home / "vectors"), str(home / "model"))


def test_a_model_that_changed_under_its_name_is_found_out(home, embedder, tmp_path):
    """By size without the source, by the first row with it."""
    shutil.copytree(home / "vectors", tmp_path / "vectors")
    path = tmp_path / "vectors" / "vectors-00000.npy"
    vectors = np.load(path)
    np.save(path, np.roll(vectors, 1, axis=1))
    with pytest.raises(FoundryError, match="gives 'text-0' another vector"):
        Corpus.open(tmp_path / "vectors", home / "corpus.parquet").check_made_by(embedder, None)
    np.save(path, vectors[:, :64])
    with pytest.raises(FoundryError, match=f"size 64, {embedder.dimension}, the model's {embedder.dimension}"):
        Corpus.open(tmp_path / "vectors").check_made_by(embedder, None)


def test_other_mistakes_at_the_start(monkeypatch, home, capsys, tmp_path):
    pq.write_table(pa.table({"id": ["text-0"], "text": ["x"]}), tmp_path / "other.parquet")
    corpus = ("--corpus", "vectors")
    assert "holds no vectors" in serve(monkeypatch, home, capsys, "--corpus", str(tmp_path))
    said = serve(monkeypatch, home, capsys, *corpus, "--source", str(tmp_path / "other.parquet"))
    assert "has no row with the id 'text-1'" in said
    assert "--source needs --corpus" in serve(monkeypatch, home, capsys, "--source", "corpus.parquet")
    assert "--images needs --source" in serve(monkeypatch, home, capsys, *corpus, "--images", "images")
