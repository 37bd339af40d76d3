"""Real servers, started once: two by `gme serve`, with a corpus and to be stopped, one with a key and tight limits."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gme_embedder.config import ModelConfig
from gme_embedder.corpus.bulk import embed_corpus
from gme_embedder.corpus.job import EmbedJob, identify_model
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.embedder import Embedder
from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.service import Service

# Helpers lie beside the tests, and the import mode of the suite puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

from serving import KEY, TEXTS, Server, client_of, in_thread, png, start


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A folder with a model, a corpus of 12 rows and its vectors in two shards."""
    home = tmp_path_factory.mktemp("serve")
    embedder = Embedder.fresh(ModelConfig(text_layers=1), seed=1)
    embedder.save(home / "model")
    embedder = Embedder.load(home / "model")
    names = ("id", "title", "text", "image")
    rows = [dict(zip(names, (f"text-{n}", None, text, None), strict=True)) for n, text in enumerate(TEXTS)]
    rows += [dict(zip(names, (f"picture-{n}", None, None, png(n)), strict=True)) for n in range(6)]
    rows += [dict(zip(names, (f"both-{n}", "Chile", f"The flag, {n}.", png(90 + n)), strict=True)) for n in range(2)]
    kinds = zip(names, (pa.string(), pa.string(), pa.string(), pa.binary()), strict=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(kinds))), home / "corpus.parquet", row_group_size=5)
    table = open_corpus(home / "corpus.parquet")
    model = identify_model(embedder, "./model")
    embed_corpus(embedder, table, home / "vectors", EmbedJob(corpus=identify_corpus(table), model=model, shard_rows=7))
    return home


@pytest.fixture(scope="session")
def servers(home) -> Iterator[dict[str, Server]]:
    """Both started at once: each spends most of its start on imports."""
    noted = ("--max-items", "16", "--name", "acme/tiny", "--json")
    started = {
        "open": start(home, "open", "--corpus", "vectors", "--source", "corpus.parquet"),
        "stopping": start(home, "stopping", *noted, key=KEY),
    }
    yield started
    for server in started.values():
        assert server.ready_line  # up: before, a signal ends it as it ends any command
        server.process.send_signal(signal.SIGINT)
    assert [server.process.wait(60) for server in started.values()] == [0, 0]


@pytest.fixture(scope="session")
def strict_url(home) -> Iterator[str]:
    """Of a server with a key and tight limits, without a corpus."""
    limits = RequestLimits(max_items=4, max_body_bytes=200_000, max_pixels=10_000, max_characters=2000)
    service = Service("acme/tiny", Embedder.load(home / "model"), limits, Batching())
    with in_thread(create_app(service, keys=[KEY])) as url:
        yield url


@pytest.fixture(scope="session")
def embedder(home) -> Embedder:
    """The same model, offline."""
    return Embedder.load(home / "model")


@pytest.fixture
def client(servers) -> Iterator[httpx.Client]:
    """Of the server with a corpus."""
    with client_of(servers["open"].url) as client:
        yield client


@pytest.fixture
def strict(strict_url) -> Iterator[httpx.Client]:
    """Of the server with a key and tight limits."""
    with client_of(strict_url, KEY) as client:
        yield client
