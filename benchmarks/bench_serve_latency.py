"""What the server adds to a bare `encode`, and what many clients get: ``python benchmarks/bench_serve_latency.py``.

Clients ask one after another for a short text each, over connections that stay open. The first line is the floor: the
same text by `encode` in one process, as often; in every round they take turns, so that a machine that slows down slows
both. Wants the machine for itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np

from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder

TEXT = "Santiago is the capital of Chile, at the foot of the Andes."
PERCENTILES = (50, 95, 99)
Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a model folder; by default a fresh small model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or str(Path(folder) / "model")
        if not arguments.model:
            Embedder.fresh(ModelConfig(), seed=1).save(Path(model))
        embedder = Embedder.load(model)
        command = [
            sys.executable,
            "-m",
            "gme_cli.main",
            "serve",
            "--model",
            model,
            "--port",
            "0",
            "--max-waiting",
            "256",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout
            url = server.stdout.readline().split(" at ")[1].split(",")[0].strip()
            try:
                measure(embedder, url, arguments.clients, arguments.seconds)
            finally:
                server.terminate()


def measure(embedder: Embedder, url: str, clients: list[int], seconds: float) -> None:
    expected = embedder.encode([TEXT])[0]
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        answer = client.post("/v1/embeddings", json={"input": TEXT}).raise_for_status().json()
        assert np.allclose(answer["data"][0]["embedding"], expected, atol=1e-6), "the server computes something else"
        floor, alone = interleaved(
            lambda: embedder.encode([TEXT]), lambda: client.post("/v1/embeddings", json={"input": TEXT}), seconds
        )
    print(f"{os.cpu_count()} cores, {threading.active_count()} thread here; milliseconds")
    print(line("bare encode", floor, 1 / statistics.mean(floor)))
    print(line("1 client, in turn with it", alone, 1 / statistics.mean(alone)))
    print(f"the server adds {1000 * (np.percentile(alone, 50) - np.percentile(floor, 50)):.1f} ms to the median")
    for count in clients:
        times, wall = together(url, count, seconds)
        print(line(f"{count} clients", times, len(times) / wall))


def interleaved(first: Work, second: Work, seconds: float) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + 2 * seconds
    while time.perf_counter() < end:
        for work, noted in zip((first, second), times, strict=True):
            began = time.perf_counter()
            work()
            noted.append(time.perf_counter() - began)
    return times


def together(url: str, count: int, seconds: float) -> tuple[list[float], float]:
    """Seconds of each answer, and of all together."""
    times: list[float] = []
    with ExitStack() as stack:
        # Made before: each costs the time of several answers.
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=120, trust_env=False)) for _ in range(count)]
        began = time.perf_counter()

        def ask(client: httpx.Client) -> None:
            while time.perf_counter() - began < seconds:
                asked = time.perf_counter()
                client.post("/v1/embeddings", json={"input": TEXT}).raise_for_status()
                times.append(time.perf_counter() - asked)

        threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return times, time.perf_counter() - began


def line(name: str, times: list[float], rate: float) -> str:
    shown = "  ".join(f"p{percent} {1000 * np.percentile(times, percent):7.1f}" for percent in PERCENTILES)
    return f"{name:26} {shown}  {rate:7.1f} answers/s"


if __name__ == "__main__":
    main()
