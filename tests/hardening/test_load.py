"""Load on a real server: many clients beside the floor of a bare `encode`, attacks beside `/healthz`, a soak."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hardening.plugin import ROOT, seed, whole
from support.attack_bodies import ATTACKS, Probe

sys.path.append(str(ROOT / "benchmarks"))

from bench_serve_latency import KINDS, Server, request, serving

SECONDS = 30 if whole() else 20
SOAK_SECONDS = 3600 if whole() else 600
SOAKING_CLIENTS = 4
ATTACKS_A_SOAK_CLIENT = 50
"""One request in so many is an attack."""
Told = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind,
            marks=pytest.mark.hardening(
                "load", f"L{number}", f"{kind} by 1, 8, 32 and 128 clients: ms at p50 / p95 / p99, answers a second"
            ),
        )
        for number, kind in enumerate(KINDS, start=1)
    ],
)
def test_many_clients(kind: str, tmp_path: Path, record_property: Told) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "bench_serve_latency.py", "--seconds", str(SECONDS)]
    report = tmp_path / "report.json"
    done = subprocess.run([*command, "--kinds", kind, "--json", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(report.read_text())
    floor, alone, *many = facts["rows"]
    for row in (floor, alone, *many):
        name = row["name"].removeprefix(f"{kind}: ")
        times = " / ".join(f"{row[percentile]:.0f}" for percentile in ("p50", "p95", "p99"))
        refused = f", {row['refused']} refused" if row["refused"] else ""
        record_property(name, f"{times}, {row['rate']:.0f}{refused}")
        assert row["refused"] == 0, "the queue holds them all"
    record_property("the server adds to the median of one client", f"{alone['p50'] - floor['p50']:.1f} ms")
    record_property("memory", f"{alone['mib']:.0f} to {many[-1]['mib']:.0f} MiB")
    record_property("start", f"{facts['start_seconds']:.1f} s")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("load")) as (server, _):
        yield server


def ask(client: httpx.Client, path: str, content: bytes) -> int:
    return client.post(path, content=content, headers={"Content-Type": "application/json"}).status_code


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.hardening("load", "L4", "each attack of A4 and A5 three times, beside /healthz, which answers")
def test_healthz_answers_while_attacks_run(server: Server, record_property: Told) -> None:
    before, longest = server.mib, 0.0
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client, Probe(server.url) as probe:
        for code, body in ATTACKS.values():
            content = body()
            for _ in range(3):
                began = time.monotonic()
                assert ask(client, "/v1/embeddings", content) == 400, code
                longest = max(longest, time.monotonic() - began)
    p50, p99 = (1000 * float(np.percentile(probe.seconds, percent)) for percent in (50, 99))
    record_property("healthz", f"p50 {p50:.0f}, p99 {p99:.0f}, longest {1000 * max(probe.seconds):.0f} ms")
    record_property("longest refusal", f"{longest:.1f} s")
    record_property("memory", f"{before:.0f} to {server.mib:.0f} MiB")
    assert p99 <= 200
    assert max(probe.seconds) <= 1
    assert server.mib - before <= 100


@pytest.mark.slow
@pytest.mark.timeout(4200)
@pytest.mark.hardening("load", "L5", "a soak: texts, pictures, searches and attacks, and memory stays level")
def test_memory_stays_level(server: Server, record_property: Told) -> None:
    good = {kind: request(kind)[:2] for kind in KINDS}
    attacks = [body() for _, body in ATTACKS.values()]
    statuses: Counter[int] = Counter()
    end = time.monotonic() + SOAK_SECONDS

    def soak(number: int) -> None:
        choices = np.random.default_rng([seed(), number])
        with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
            while time.monotonic() < end:
                if choices.integers(ATTACKS_A_SOAK_CLIENT) == 0:
                    statuses[ask(client, "/v1/embeddings", attacks[choices.integers(len(attacks))])] += 1
                    continue
                path, body = good[KINDS[choices.integers(len(KINDS))]]
                statuses[client.post(path, json=body).status_code] += 1

    clients = [threading.Thread(target=soak, args=(number,)) for number in range(SOAKING_CLIENTS)]
    for client in clients:
        client.start()
    sampled: list[float] = []
    while any(client.is_alive() for client in clients):
        sampled.append(server.mib)
        time.sleep(2)
    for client in clients:
        client.join()
    # A tenth of the time is the warm-up: allocators and caches grow to what the load needs.
    level = sampled[len(sampled) // 10 :]
    first, last = float(np.median(level[: len(level) // 5])), float(np.median(level[-len(level) // 5 :]))
    record_property("minutes", round(SOAK_SECONDS / 60))
    record_property("answers", f"{statuses[200]:,}, {statuses[400]:,} attacks refused")
    record_property("memory", f"{first:.0f} MiB in the first fifth, {last:.0f} in the last, {max(sampled):.0f} at most")
    assert statuses.keys() == {200, 400}
    assert last - first <= 50
