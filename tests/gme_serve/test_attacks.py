"""Bodies that cost more than they weigh, at the real server: refused soon, beside `/healthz`, the memory given back."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from serving import Server, client_of, error_of, until
from support.attack_bodies import ATTACKS, MIB, Probe

pytestmark = pytest.mark.xdist_group("serve-attacks")


@pytest.fixture(scope="module")
def attacked(home, tmp_path_factory) -> Iterator[Server]:
    """A server that ends 2 seconds after it is told to, and gives no request more than 6."""
    log = tmp_path_factory.mktemp("attacked") / "log"
    script = Path(__file__).with_name("constant_server.py")
    with log.open("w") as errors:
        command = [
            sys.executable,
            str(script),
            str(home / "model"),
            json.dumps({"grace_seconds": 2, "max_seconds": 6}),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    yield Server(process, log)
    process.kill()
    process.wait(60)


@pytest.fixture(scope="module")
def client(attacked) -> Iterator[httpx.Client]:
    with client_of(attacked.url) as client:
        assert client.post("/v1/embeddings", json={"input": ["x"] * 100}).status_code == 200, "warm"
        yield client


@pytest.fixture(scope="module")
def at_start(attacked, client) -> int:
    return memory(attacked)


def memory(server: Server) -> int:
    return psutil.Process(server.process.pid).memory_info().rss


def send(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.hardening(
    "attacks",
    "A4-A5",
    "Bodies that cost more than they weigh: millions of values, long names and instructions, huge pictures",
)
def test_an_attack_is_refused_and_nobody_waits_for_it(attacked, client, at_start, name):
    code, body = ATTACKS[name]
    content = body()
    began = time.monotonic()
    with Probe(attacked.url) as probe:
        answer = send(client, content)
    assert (answer.status_code, error_of(answer)["code"]) == (400, code), answer.text
    assert time.monotonic() - began < 6.5
    assert max(probe.seconds) < 2, sorted(probe.seconds)[-5:]
    until(lambda: memory(attacked) - at_start < 100 * MIB, 5)


@pytest.mark.hardening(
    "attacks",
    "A4-A5",
    "Bodies that cost more than they weigh: millions of values, long names and instructions, huge pictures",
)
def test_what_takes_too_long_is_told_so(attacked, client):
    """The model is at it for longer than a request may take; meanwhile a body does not come."""
    url, began = httpx.URL(attacked.url), time.monotonic()
    with ThreadPoolExecutor(1) as pool, socket.create_connection((url.host, url.port), 20) as slow:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nContent-Type: application/json\r\n"
        slow.sendall(head.encode() + b"Connection: close\r\nContent-Length: 100\r\n\r\n{")
        computed = pool.submit(client.post, "/v1/embeddings", json={"input": "slow 7"})
        not_read, answer = slow.makefile("rb").read(), computed.result()
    assert (answer.status_code, error_of(answer)["code"], error_of(answer)["type"]) == (504, "timeout", "server_error")
    assert not_read.startswith(b"HTTP/1.1 408 ")
    assert b"body_too_slow" in not_read
    assert 5.5 < time.monotonic() - began < 8
    assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200, "the next one is computed"


@pytest.mark.hardening("attacks", "A6", "SIGTERM with 50 requests in flight")
def test_it_ends_within_its_grace_whatever_the_model_does(attacked, client):
    """The last test: a batch that nothing can end is left, and what waited is told to come again."""
    with ThreadPoolExecutor(4) as pool:
        computed = pool.submit(client.post, "/v1/embeddings", json={"input": "slow 70"})
        time.sleep(0.5)
        waiting = [pool.submit(client.post, "/v1/embeddings", json={"input": "x"}) for _ in range(3)]
        time.sleep(0.5)
        attacked.process.send_signal(signal.SIGTERM)
        stopped_at = time.monotonic()
        assert [future.result().status_code for future in waiting] == [503] * 3
        assert time.monotonic() - stopped_at < 1, "at once"
        assert computed.result().status_code == 503
    assert attacked.process.wait(10) == 0
    assert 1.5 < time.monotonic() - stopped_at < 3
    assert "Traceback" not in attacked.log.read_text()
    assert "the grace was over" in attacked.log.read_text()
