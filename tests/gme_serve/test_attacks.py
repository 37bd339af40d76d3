"""Bodies that cost more than they weigh, at the real server: refused soon, beside `/healthz`, the memory given back."""

from __future__ import annotations

import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image
from serving import Server, client_of, data_uri, error_of, until

pytestmark = pytest.mark.xdist_group("serve-attacks")

MIB = 2**20
WHOLE = 16 * MIB - 1000
"""As much as a body may have, and what stands around."""


def of_many(member: bytes, before: bytes = b'{"input":[', after: bytes = b"]}") -> bytes:
    return before + b",".join([member] * (WHOLE // (len(member) + 1))) + after


def of_keys(count: int) -> bytes:
    return b'{"input":"x",' + b",".join(b'"%d":1' % number for number in range(count)) + b"}"


def of_pictures(count: int, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return json.dumps({"input": [{"image": data_uri(buffer.getvalue())}] * count}).encode()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def of_header(width: int, height: int, after: bytes = b"") -> bytes:
    """A picture that says how large it is."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    picture = b"\x89PNG\r\n\x1a\n" + header + after + chunk(b"IDAT") + chunk(b"IEND")
    return json.dumps({"input": [{"image": data_uri(picture)}]}).encode()


ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "5.5 million objects": ("too_many_values", lambda: of_many(b"{}")),
    "3 million nulls": ("too_many_values", lambda: of_many(b"null")),
    "4 million short texts": ("too_many_values", lambda: of_many(b'"a"')),
    "8 million numbers": ("too_many_values", lambda: of_many(b"1")),
    "a million and a half fields": ("too_many_values", lambda: of_keys(1_400_000)),
    "a million fields of an item": ("too_many_values", lambda: b'{"input":[' + of_keys(1_000_000) + b"]}"),
    "as many values as are allowed": ("empty_item", lambda: b'{"input":["a",{},' + b'"a",' * 2000 + b'"a"],"more":['
                                      + b"{}," * 64_000 + b"{}]}"),
    "as many items as a list may have": ("too_many_items", lambda: b'{"input":[' + b'{"text":"a"},' * 65_000 + b"{}]}"),
    "a name of 16 MB": ("name_too_long", lambda: b'{"input":"x","' + b"y" * WHOLE + b'":1}'),
    "a name of 16 MB in an item": ("name_too_long", lambda: b'{"input":[{"' + b"y" * WHOLE + b'":1}]}'),
    "16 MB of quotes": ("too_many_values", lambda: b'"' * WHOLE),
    "16 MB of backslashes": ("text_too_long", lambda: b'{"input":"' + b"\\" * WHOLE + b'"}'),
    "16 MB of escapes": ("text_too_long", lambda: b'{"input":"' + b"\\u0041" * (WHOLE // 6) + b'"}'),
    "16 MB of one text, a letter of it wide": (
        "text_too_long", lambda: b'{"input":"' + b"a" * (WHOLE - 20) + "\U0001f40e".encode() + b'"}'
    ),
    "16 MB of digits": ("json_invalid", lambda: b'{"input":' + b"9" * WHOLE + b"}"),
    "16 MB of brackets": ("too_many_values", lambda: b"[" * WHOLE),
    "an instruction of 100,000 characters": (
        "text_too_long", lambda: json.dumps({"input": "x", "instruction": "word " * 20_000}).encode()
    ),
    "an instruction of 100,000 characters before 2,000 texts": (
        "text_too_long", lambda: json.dumps({"input": ["x"] * 2000, "instruction": "word " * 20_000}).encode()
    ),
    "a longer side than allowed": ("side_too_long", lambda: of_header(1, 16_385)),
    "1 x 16 million pixels": ("bad_item", lambda: of_header(1, 16_000_000)),
    "60 million x 1 pixels": ("bad_item", lambda: of_header(60_000_000, 1)),
    "128 pictures of 16 megapixels": ("too_many_pixels", lambda: of_pictures(128, 4096, 4096)),
    "half a million chunks": ("bad_item", lambda: of_header(8, 8, chunk(b"abCd") * 500_000)),
}  # fmt: skip


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


class Probe:
    """Asks `/healthz` all the time, and notes how long it took."""

    def __init__(self, url: str) -> None:
        self.url, self.seconds, self._over = url, [], threading.Event()

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with client_of(self.url) as client:
            while not (self.seconds and self._over.is_set()):
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                self.seconds.append(time.monotonic() - began)
                time.sleep(0.02)


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
        told = time.monotonic()
        assert [future.result().status_code for future in waiting] == [503] * 3
        assert time.monotonic() - told < 1, "at once"
        assert computed.result().status_code == 503
    assert attacked.process.wait(10) == 0
    assert 1.5 < time.monotonic() - told < 3
    assert "Traceback" not in attacked.log.read_text()
    assert "the grace was over" in attacked.log.read_text()
