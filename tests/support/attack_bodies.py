"""Bodies that cost more than they weigh, and a probe that sees whether others wait for them."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable

import httpx
from PIL import Image

MIB = 2**20
WHOLE = 16 * MIB - 1000
"""As much as a body may have, and what stands around."""


def of_many(member: bytes, before: bytes = b'{"input":[', after: bytes = b"]}") -> bytes:
    return before + b",".join([member] * (WHOLE // (len(member) + 1))) + after


def of_keys(count: int) -> bytes:
    return b'{"input":"x",' + b",".join(b'"%d":1' % number for number in range(count)) + b"}"


def data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


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


class Probe:
    """Asks `/healthz` all the time, and notes how long it took."""

    def __init__(self, url: str) -> None:
        self.url, self._over = url, threading.Event()
        self.seconds: list[float] = []

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            while not (self.seconds and self._over.is_set()):
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                self.seconds.append(time.monotonic() - began)
                time.sleep(0.02)
