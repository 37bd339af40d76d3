"""The server's door: a body is answered 200, its texts unchanged, a vector each, or 4xx as OpenAI's API does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz.harness import fuzzed, try_damaged
from fuzz.values import JSON_VALUES, TEXTS
from hypothesis import given
from hypothesis import strategies as st
from serving import ConstantEncoder, data_uri, png
from starlette.testclient import TestClient

from gme_embedder.processing.prepare import Preparer
from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.service import Service

PATHS = ("/v1/embeddings", "/v1/search", "/v1/embeddings/upload")
FIELDS = ("input", "model", "instruction", "encoding_format", "dimensions", "user", "tokenizer", "text", "image", "k")
ITEMS = TEXTS | st.fixed_dictionaries({}, optional={"text": TEXTS, "title": TEXTS, "image": st.just(data_uri(png(1)))})
GOOD = [
    json.dumps({"input": "a text"}),
    json.dumps({"input": ["a", {"title": "b", "text": "c"}], "encoding_format": "base64", "user": "me"}),
    json.dumps({"input": [{"image": data_uri(png(2))}], "instruction": "Find it.", "dimensions": None}),
]


@pytest.fixture(scope="module")
def encoder(preparer: Preparer) -> ConstantEncoder:
    return ConstantEncoder(preparer)


@pytest.fixture(scope="module")
def client(encoder: ConstantEncoder) -> Iterator[TestClient]:
    service = Service("tiny", encoder, RequestLimits(), Batching())  # type: ignore[arg-type] - as `Embedder`
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield client


def answer(client: TestClient, path: str, body: bytes) -> dict[str, Any]:
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code < 500, (response.text, body)
    content: dict[str, Any] = response.json()
    if response.status_code != 200:
        assert response.status_code >= 400
        assert set(content["error"]) == {"message", "type", "param", "code"}
        assert content["error"]["message"]
    return content


@fuzzed()
@given(
    path=st.sampled_from(PATHS), body=JSON_VALUES | st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=4)
)
@pytest.mark.hardening("fuzz", "Z4", "bodies of the server")
def test_any_json(client: TestClient, path: str, body: Any) -> None:
    answer(client, path, json.dumps(body).encode())


@fuzzed()
@given(items=st.lists(ITEMS, min_size=1, max_size=3), extra=st.dictionaries(TEXTS, JSON_VALUES, max_size=2))
@pytest.mark.hardening("fuzz", "Z4", "bodies of the server")
def test_texts_arrive_as_they_were_sent(
    client: TestClient, encoder: ConstantEncoder, items: list[Any], extra: dict[str, Any]
) -> None:
    encoder.calls.clear()
    extra = {name: value for name, value in extra.items() if name not in FIELDS}
    content = answer(client, "/v1/embeddings", json.dumps({**extra, "input": items}).encode())
    if "error" in content:
        return
    assert [row["index"] for row in content["data"]] == list(range(len(items)))
    arrived = [text for call in encoder.calls for text in call]
    assert sorted(arrived, key=repr) == sorted((i if isinstance(i, str) else i.get("text") for i in items), key=repr)


PIECES = st.sampled_from(
    [
        b"{}",
        b"[]",
        b"null",
        b"0",
        b'"a"',
        b'"\\""',
        b'"\\\\"',
        b'{"text":"a"}',
        b'{"a":1}',
        b"[1]",
        b"[[]]",
        b"\\",
        b'"',
        b" ",
    ]
)
FRAMES = st.sampled_from(
    [
        (b'{"input":[', b"]}"),
        (b'{"input":"x","more":[', b"]}"),
        (b'{"input":[{"text":[', b"]}]}"),
        (b"[", b"]"),
        (b"", b""),
    ]
)


@fuzzed(5)
@given(
    path=st.sampled_from(PATHS),
    frame=FRAMES,
    piece=PIECES,
    between=st.sampled_from([b",", b":", b"", b" , "]),
    of=st.integers(1, 5),
)
@pytest.mark.hardening("fuzz", "Z4", "bodies of the server")
def test_bodies_of_many_small_things(
    client: TestClient, path: str, frame: tuple[bytes, bytes], piece: bytes, between: bytes, of: int
) -> None:
    """A hundred thousand of one thing and more, in a frame of another: refused or answered, soon."""
    before, after = frame
    answer(client, path, before + between.join([piece] * (of * 10**5 // 3)) + after)


@fuzzed()
@given(name=st.binary(max_size=600), value=JSON_VALUES, before=st.binary(max_size=20))
@pytest.mark.hardening("fuzz", "Z4", "bodies of the server")
def test_names_of_any_length_and_bytes(client: TestClient, name: bytes, value: Any, before: bytes) -> None:
    body = b'{"input":"x",' + before + b'"' + name * 9 + b'":' + json.dumps(value).encode() + b"}"
    answer(client, "/v1/embeddings", body)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("good", GOOD)
@pytest.mark.hardening("fuzz", "Z4", "bodies of the server")
def test_damaged_bodies(client: TestClient, path: str, good: str) -> None:
    try_damaged(good.encode(), lambda body: answer(client, path, body), share=0.5, fields=True)
