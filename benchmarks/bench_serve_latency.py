"""What the server adds to a bare `encode`, and what many clients get: ``python benchmarks/bench_serve_latency.py``.

Clients ask one after another, for a short text each, a picture each or the hits of a text in a corpus, over connections
that stay open. The first line is the floor: the same item by `encode` in one process, as often; in every round they
take turns, so that a machine that slows down slows both. Wants the machine for itself.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gme_embedder.config import ModelConfig
from gme_embedder.corpus.bulk import embed_corpus
from gme_embedder.corpus.job import EmbedJob, identify_model
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.embedder import Embedder

TEXT = "Santiago is the capital of Chile, at the foot of the Andes."
KINDS = ("text", "picture", "search")
SEARCHED_ROWS = 500
Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """What clients got: milliseconds, answers a second, how many were refused, and MiB that the server has after."""

    name: str
    p50: float
    p95: float
    p99: float
    rate: float
    refused: int = 0
    mib: float = 0.0

    def __str__(self) -> str:
        times = f"p50 {self.p50:7.1f}  p95 {self.p95:7.1f}  p99 {self.p99:7.1f}"
        return f"{self.name:34} {times}  {self.rate:7.1f} answers/s  {self.refused} refused  {self.mib:.0f} MiB"


@dataclass(frozen=True)
class Server:
    """A running `gme serve`: its address, its process, and the seconds that its start took."""

    url: str
    process: psutil.Process
    start_seconds: float

    @property
    def mib(self) -> float:
        """Resident memory."""
        return float(self.process.memory_info().rss) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a model folder; by default a fresh small model")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), arguments.model) as (server, embedder):
        print(f"{os.cpu_count()} cores; the server starts in {server.start_seconds:.1f} s and has {server.mib:.0f} MiB")
        rows: list[Row] = []
        for kind in arguments.kinds:
            for row in measure(kind, server, embedder, arguments.clients, arguments.seconds):
                print(row, flush=True)
                rows.append(row)
        if arguments.json:
            facts = {"start_seconds": server.start_seconds, "rows": [asdict(row) for row in rows]}
            arguments.json.write_text(json.dumps(facts))


@contextmanager
def serving(home: Path, model: str | None = None) -> Iterator[tuple[Server, Embedder]]:
    """A server of a model and a corpus of texts, and the model itself."""
    model = model or str(home / "model")
    if not Path(model).exists():
        Embedder.fresh(ModelConfig(), seed=1).save(Path(model))
    embedder = Embedder.load(model)
    rows = [{"id": str(number), "text": f"{TEXT} No. {number}."} for number in range(SEARCHED_ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), home / "corpus.parquet")
    table = open_corpus(home / "corpus.parquet")
    job = EmbedJob(corpus=identify_corpus(table), model=identify_model(embedder, model))
    embed_corpus(embedder, table, home / "vectors", job)
    options = ["--corpus", home / "vectors", "--source", home / "corpus.parquet", "--max-waiting", "256"]
    command = [sys.executable, "-m", "gme_cli.main", "serve", "--model", model, "--port", "0", *options]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().split(" at ")[1].split(",")[0].strip()
        try:
            yield Server(url, psutil.Process(process.pid), time.perf_counter() - began), embedder
        finally:
            process.terminate()


def picture() -> Image.Image:
    """A photograph's size and nothing of its content: 640 x 480 pixels."""
    levels = np.random.default_rng(7).integers(0, 255, (12, 16, 3), np.uint8)
    return Image.fromarray(levels).resize((640, 480), Image.Resampling.BICUBIC)


def request(kind: str) -> tuple[str, dict[str, Any], object]:
    """Path and body for a kind, and the item that `encode` is given for the same."""
    if kind == "picture":
        buffer = io.BytesIO()
        picture().save(buffer, "JPEG", quality=90)
        uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        return "/v1/embeddings", {"input": [{"image": uri}]}, {"image": buffer.getvalue()}
    if kind == "search":
        return "/v1/search", {"text": TEXT, "k": 10}, TEXT
    return "/v1/embeddings", {"input": TEXT}, TEXT


def measure(kind: str, server: Server, embedder: Embedder, clients: list[int], seconds: float) -> Iterator[Row]:
    """The floor, one client in turn with it, then clients together."""
    path, body, item = request(kind)
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        answer = client.post(path, json=body).raise_for_status().json()
        if path == "/v1/embeddings":
            expected = embedder.encode([item])[0]
            assert np.allclose(answer["data"][0]["embedding"], expected, atol=1e-6), "the server computes others"
        floor, alone = interleaved(lambda: embedder.encode([item]), lambda: client.post(path, json=body), seconds)
    yield row(f"{kind}: bare encode", floor, sum(floor))
    yield row(f"{kind}: 1 client, in turn with it", alone, sum(alone), mib=server.mib)
    for count in clients:
        times, statuses, wall = together(server.url, path, body, count, seconds)
        refused = sum(number for status, number in statuses.items() if status != 200)
        yield row(f"{kind}: {count} clients", times, wall, refused, server.mib)


def interleaved(first: Work, second: Work, seconds: float) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + 2 * seconds
    while time.perf_counter() < end:
        for work, noted in zip((first, second), times, strict=True):
            began = time.perf_counter()
            work()
            noted.append(time.perf_counter() - began)
    return times


def together(
    url: str, path: str, body: dict[str, Any], count: int, seconds: float
) -> tuple[list[float], Counter[int], float]:
    """Seconds of each answer, statuses, and the seconds of all together."""
    times: list[float] = []
    statuses: Counter[int] = Counter()
    with ExitStack() as stack:
        # Made before: each costs the time of several answers.
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=120, trust_env=False)) for _ in range(count)]
        began = time.perf_counter()

        def ask(client: httpx.Client) -> None:
            while time.perf_counter() - began < seconds:
                asked = time.perf_counter()
                statuses[client.post(path, json=body).status_code] += 1
                times.append(time.perf_counter() - asked)

        threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - began
    return times, statuses, wall


def row(name: str, times: list[float], wall: float, refused: int = 0, mib: float = 0.0) -> Row:
    p50, p95, p99 = (1000 * float(np.percentile(times, percent)) for percent in (50, 95, 99))
    return Row(name, p50, p95, p99, len(times) / wall, refused, mib)


if __name__ == "__main__":
    main()
