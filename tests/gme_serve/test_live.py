"""A corpus is updated while it is searched: every answer is of one version, and what can't be served is refused."""

from __future__ import annotations

import gc
import io
import json
import re
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from serving import client_of, in_thread, png, until

import gme_serve.catalogue as catalogue_module
import gme_serve.live as live_module
from gme_embedder.corpus.job import EmbedJob, identify_model, read_job
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.corpus.update import update_corpus
from gme_embedder.corpus.vector_folder import open_index
from gme_embedder.embedder import Embedder
from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.live import CorpusLocation, LiveCorpus
from gme_serve.service import Service

pytestmark = pytest.mark.xdist_group("serve")
WORDS = ["river", "flag", "white", "capital", "island", "border", "road", "lake"]


def rows_of(version: int) -> dict[str, dict[str, object]]:
    """Of each version other rows are gone, new or changed, and a row that stays has another place."""
    numbers = [number for number in range(14) if number % 5 != version % 5]
    changed = {number: version if number % 3 == version % 3 else 0 for number in numbers}
    texts = {f"r{n}": f"{WORDS[n % 8]} {n}, version {changed[n]} {'x' * (n % 4)}".strip() for n in numbers}
    return {
        id_: {"text": text, "image": png(100 * changed[int(id_[1:])] + int(id_[1:])) if id_[-1] == "1" else None}
        for id_, text in (texts if version % 2 else dict(reversed(texts.items()))).items()
    }


class Home:
    """A corpus on disk, its vectors, and who brings them up to date."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.embedder = Embedder.load(model)  # another than the server's
        self.model = identify_model(self.embedder, "model")
        self.source, self.vectors = folder / "corpus.parquet", folder / "vectors"
        self.versions: dict[str, dict[str, dict[str, object]]] = {}

    @property
    def place(self) -> CorpusLocation:
        return CorpusLocation(self.vectors, self.model, self.source)

    def publish(self, version: int) -> str:
        """Write the tables anew, in place, and update the vectors; returns the index."""
        rows = rows_of(version)
        schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("image", pa.binary())])
        table = pa.Table.from_pylist([{"id": id_, **row} for id_, row in rows.items()], schema)
        pq.write_table(table, self.source, row_group_size=3)
        opened = open_corpus(self.source)
        job = EmbedJob(corpus=identify_corpus(opened), model=self.model, shard_rows=4)
        update_corpus(self.embedder, opened, self.vectors, job)
        index = open_index(self.vectors).digest
        self.versions[index] = rows
        return index


@pytest.fixture
def updated(home, tmp_path) -> Home:
    home_copy = Home(tmp_path, home / "model")
    home_copy.publish(0)
    return home_copy


@contextmanager
def served(home: Path, corpus: Home) -> Iterator[tuple[LiveCorpus, httpx.Client]]:
    embedder = Embedder.load(home / "model")
    live = LiveCorpus.open(corpus.place, embedder, seconds=0.02)
    service = Service("model", embedder, RequestLimits(), Batching())
    with in_thread(create_app(service, live)) as url, client_of(url) as client:
        yield live, client


def metric(client: httpx.Client, name: str) -> float:
    match = re.search(rf"^{re.escape(name)} ([\d.]+)$", client.get("/metrics").text, re.MULTILINE)
    assert match, name
    return float(match[1])


def check(body: dict, versions: dict[str, dict[str, dict[str, object]]], vectors: dict[str, np.ndarray]) -> None:
    """All rows of one version, with their texts and whether they have pictures, by the scores of their vectors."""
    rows, query = versions[body["index"]], vectors["query"]
    hits = {hit["id"]: (hit["text"], hit["image"] is not None) for hit in body["data"]}
    assert hits == {id_: (row["text"], row["image"] is not None) for id_, row in rows.items()}
    assert [list(rows)[hit["row"]] for hit in body["data"]] == list(hits)
    scores = [hit["score"] for hit in body["data"]]
    assert scores == sorted(scores, reverse=True)
    by_id = vectors[body["index"]]
    np.testing.assert_allclose(scores, [by_id[id_] @ query for id_ in hits], atol=1e-4)


def test_every_answer_during_updates_is_of_one_version(home, updated, monkeypatch):
    """Six clients search without a pause while five versions are published."""
    monkeypatch.setattr(catalogue_module, "_CACHED_CHUNKS", 1)  # texts are read again and again
    done, answers = threading.Event(), []
    with served(home, updated) as (live, client):

        def ask(number: int) -> None:
            with client_of(str(client.base_url)) as session:
                while not done.is_set():
                    answer = session.post("/v1/search", json={"text": "a white flag", "k": 50})
                    answers.append(answer)
                    for hit in answer.json().get("data", []):
                        if hit["image"]:
                            answers.append(session.get(hit["image"]))

        with ThreadPoolExecutor(6) as pool:
            asking = [pool.submit(ask, number) for number in range(6)]
            try:
                for version in range(1, 6):
                    index = updated.publish(version)
                    until(lambda index=index: live.current.index == index)
                    until(
                        lambda index=index: any(
                            index in answer.text for answer in answers[-20:] if answer.text[:1] == "{"
                        )
                    )
            finally:
                done.set()
            for future in asking:
                future.result()
        assert metric(client, 'gme_corpus_updates_total{result="served"}') >= 5
        assert metric(client, "gme_corpus_items") == len(rows_of(5))
        state = client.get("/healthz").json()
        assert (state["index"], state["corpus"]) == (live.current.index, len(rows_of(5)))
    vectors = {index: vectors_of(updated.embedder, rows) for index, rows in updated.versions.items()}
    vectors["query"] = updated.embedder.encode(["a white flag"])[0]
    searches = [answer for answer in answers if answer.url.path == "/v1/search"]
    pictures = [answer for answer in answers if answer.url.path != "/v1/search"]
    assert {answer.status_code for answer in searches} == {200}
    assert {answer.status_code for answer in pictures} <= {200, 410}
    for answer in searches:
        check(answer.json(), updated.versions, vectors)
    shown = [answer for answer in pictures if answer.status_code == 200]
    assert shown
    for answer in shown:
        row = list(updated.versions[answer.url.params["index"]].values())[int(answer.url.path.split("/")[3])]
        with Image.open(io.BytesIO(answer.content)) as got, Image.open(io.BytesIO(row["image"])) as expected:
            assert got.tobytes() == expected.tobytes()
    assert {answer.json()["index"] for answer in searches} == set(updated.versions)


def vectors_of(embedder: Embedder, rows: dict[str, dict[str, object]]) -> dict[str, np.ndarray]:
    items = [{name: value for name, value in row.items() if value is not None} for row in rows.values()]
    return dict(zip(rows, embedder.encode(items), strict=True))


def damage(corpus: Home) -> None:
    """A flipped byte in a shard that is published."""
    path = corpus.vectors / read_job(corpus.vectors).shards_in / "vectors-00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x3f")


def halve(corpus: Home) -> None:
    (corpus.vectors / read_job(corpus.vectors).shards_in / "vectors-00001.npy").unlink()


def other_model(corpus: Home) -> None:
    path = corpus.vectors / "job.json"
    job = json.loads(path.read_text())
    path.write_text(json.dumps({**job, "model": {**job["model"], "digest": "f" * 64}}))


def other_source(corpus: Home) -> None:
    pq.write_table(pq.read_table(corpus.source).slice(1), corpus.source)


def no_record(corpus: Home) -> None:
    (corpus.vectors / "job.json").write_text("{")


BROKEN = {
    damage: "is damaged or another file",
    halve: "shards are missing",
    other_model: "made by another model than is served",
    other_source: "--source",
    no_record: "is damaged",
}


def test_what_can_not_be_served_is_refused_and_the_old_goes_on(home, updated, caplog, monkeypatch):
    """Each is refused with a line and a count, and found when it is mended."""
    monkeypatch.setattr(live_module, "_RETRY_SECONDS", 0.1)
    with served(home, updated) as (live, client):
        for number, (spoil, message) in enumerate(BROKEN.items(), start=1):
            before, refused = live.current.index, metric(client, 'gme_corpus_updates_total{result="refused"}')
            stopped = replaced_when(live, spoil, updated, number)
            until(lambda refused=refused: metric(client, 'gme_corpus_updates_total{result="refused"}') > refused)
            assert message in caplog.text, spoil.__name__
            assert "the new index is refused" in caplog.text
            caplog.clear()
            answer = client.post("/v1/search", json={"text": "a flag", "k": 50})
            assert (answer.status_code, answer.json()["index"]) == (200, before)
            assert {hit["id"] for hit in answer.json()["data"]} == set(updated.versions[before])
            shutil.rmtree(updated.vectors)
            mended = updated.publish(stopped)
            until(lambda mended=mended: live.current.index == mended)


def replaced_when(live: LiveCorpus, spoil, corpus: Home, version: int) -> int:
    """Publish a version that is spoilt before the server can look at it."""
    vectors, hidden_folder = corpus.vectors, corpus.vectors.with_name("hidden")
    shutil.copytree(vectors, hidden_folder)
    corpus.vectors = hidden_folder
    corpus.publish(version)
    spoil(corpus)
    corpus.vectors = vectors
    shutil.rmtree(vectors)
    hidden_folder.rename(vectors)
    return version


def test_the_old_version_is_freed_when_its_last_request_is_answered(home, updated, monkeypatch):
    """A search that began before the update ends on the old version, which is gone after it."""
    began, go = threading.Event(), threading.Event()
    with served(home, updated) as (live, client), ThreadPoolExecutor(1) as pool:
        old = live.current
        catalogue_ref, index = weakref.ref(old.catalogue), old.index
        real = type(old).search

        def slow(corpus, *arguments):
            if corpus.index == index:
                began.set()
                assert go.wait(60)
            return real(corpus, *arguments)

        monkeypatch.setattr(type(old), "search", slow)
        del old
        pending = pool.submit(client.post, "/v1/search", json={"text": "a flag", "k": 50})
        assert began.wait(60)
        new = updated.publish(1)
        until(lambda: live.current.index == new)
        assert catalogue_ref() is not None
        go.set()
        answer = pending.result()
        assert (answer.status_code, answer.json()["index"]) == (200, index)
        assert {hit["id"] for hit in answer.json()["data"]} == set(updated.versions[index])
        picture = next(hit["image"] for hit in answer.json()["data"] if hit["image"])
        gone = client.get(picture)
        assert (gone.status_code, gone.json()["error"]["code"]) == (410, "corpus_updated")
        until(lambda: gc.collect() >= 0 and catalogue_ref() is None)


def test_a_server_that_is_stopped_while_it_loads_stops(home, updated, monkeypatch):
    loading, go = threading.Event(), threading.Event()
    with served(home, updated) as (live, _):
        real = CorpusLocation.open

        def slow(place):
            loading.set()
            assert go.wait(60)
            return real(place)

        monkeypatch.setattr(CorpusLocation, "open", slow)
        updated.publish(1)
        assert loading.wait(60)
        started = time.monotonic()
    assert time.monotonic() - started < 30
    assert live.loading
    go.set()
    until(lambda: not live.loading)
