"""The key, and every limit: on a server that has one and tight ones."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import KEY, ConstantEncoder, client_of, data_uri, error_of, in_thread, png, until

from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.service import Service

pytestmark = pytest.mark.xdist_group("serve")


def embed(client, **body):
    return client.post("/v1/embeddings", json=body)


@pytest.mark.parametrize(
    "header",
    [None, "", KEY, "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer é"],
)
def test_without_the_key_nobody_comes_in(strict_url, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    with client_of(strict_url) as client:
        for path in ("/v1/embeddings", "/v1/embeddings/upload", "/v1/search"):
            answer = client.post(path, json={"input": "x"}, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            error = error_of(answer)
            assert error["code"] == "invalid_api_key"
            assert "Authorization: Bearer" in error["message"]
        for path in ("/metrics", "/v1/models", "/openapi.json", "/v1/items/0/image", "/nothing"):
            assert client.get(path, headers=headers).status_code == 401


def test_the_probe_and_the_page_are_open(strict_url):
    with client_of(strict_url) as client:
        assert client.get("/healthz").json()["key_required"] is True
        assert client.get("/").status_code == 200


def test_with_the_key_it_works_and_the_key_is_nowhere_to_be_read(strict):
    assert embed(strict, input="x", model="acme/tiny").status_code == 200
    shown = [strict.get(path).text for path in ("/", "/healthz", "/metrics", "/openapi.json", "/v1/models")]
    shown.append(embed(strict, input=[]).text)
    assert not any(KEY in text for text in shown)


def test_no_page_of_another_site_and_no_other_name_comes_in(strict):
    """At the door of the real server, whatever is asked for; a key would not help."""
    for headers in ({"Origin": "https://evil.example"}, {"Host": "rebind.evil.example"}):
        for method, path in (("POST", "/v1/embeddings"), ("OPTIONS", "/v1/embeddings"), ("GET", "/v1/models"),
                             ("GET", "/healthz"), ("GET", "/"), ("GET", "/metrics")):  # fmt: skip
            answer = strict.request(method, path, headers=headers)
            assert answer.status_code == 403, (headers, path)
            assert error_of(answer)["code"] in ("origin_not_allowed", "host_not_allowed")
            assert "access-control-allow-origin" not in answer.headers


def test_items(strict):
    assert embed(strict, input=["x"] * 4).status_code == 200
    error = error_of(embed(strict, input=["x"] * 5))
    assert error["code"] == "too_many_items"
    assert "5 items in one request; this server takes 4" in error["message"]


def test_characters(strict):
    assert embed(strict, input="x" * 2000).status_code == 200
    for body in ({"input": ["x", "x" * 2001]}, {"input": "x", "instruction": "x" * 4097}):
        answer = embed(strict, **body)
        assert (answer.status_code, error_of(answer)["code"]) == (400, "text_too_long")
    assert error_of(embed(strict, input=[{"title": "x" * 2001}]))["param"] == "input[0]"


def test_pixels(strict):
    assert embed(strict, input=[{"image": data_uri(png(1, 100, 100))}]).status_code == 200
    for answer in (
        embed(strict, input=[{"image": data_uri(png(1, 101, 100))}]),
        strict.post("/v1/embeddings/upload", files={"image": png(1, 101, 100)}),
    ):
        assert (answer.status_code, error_of(answer)["code"]) == (400, "too_many_pixels")
        assert "101x100 pixels; this server takes 10000" in error_of(answer)["message"]


def test_bytes_that_are_announced(strict):
    answer = embed(strict, input="x", user="x" * 200_000)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
    assert embed(strict, input="x", user="x" * 199_000).status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/embeddings/upload"])
def test_bytes_that_are_not_announced(strict, path):
    kind = "multipart/form-data; boundary=b" if "upload" in path else "application/json"
    start = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        if "upload" in path
        else b'{"input": "'
    )
    body = [start, *[b"x" * 10_000] * 30]
    answer = strict.post(path, content=iter(body), headers={"Content-Type": kind})
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")


def test_too_many_at_once_are_told_to_come_again(embedder):
    """The model computes one request and another waits: two may."""
    encoder = ConstantEncoder(embedder.preparer)
    service = Service("tiny", encoder, RequestLimits(max_waiting=2), Batching())
    with in_thread(create_app(service)) as url, client_of(url) as client, ThreadPoolExecutor(2) as pool:
        encoder.go.clear()
        waiting = [pool.submit(embed, client, input="computed")]
        until(lambda: encoder.calls)
        waiting.append(pool.submit(embed, client, input="waits"))
        until(lambda: "gme_queue_depth 1.0" in client.get("/metrics").text)
        answer = embed(client, input="too many")
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "busy")
        assert answer.headers["retry-after"] == "1"
        encoder.go.set()
        assert [future.result().status_code for future in waiting] == [200, 200]
        assert embed(client, input="afterwards").status_code == 200


def test_too_many_tokens_at_once_are_told_to_come_again(embedder):
    """The model computes one request while another waits; a third would be too much, and is not when those are done."""
    encoder = ConstantEncoder(embedder.preparer)
    service = Service("tiny", encoder, RequestLimits(max_waiting_tokens=1000), Batching(batch_tokens=100))
    with in_thread(create_app(service)) as url, client_of(url) as client, ThreadPoolExecutor(2) as pool:
        large = {"input": ["a river"] * 60}  # more than may wait, but nothing waits
        encoder.go.clear()
        waiting = [pool.submit(embed, client, **large)]
        until(lambda: encoder.calls)
        answer = embed(client, input=["a river"] * 30)
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "busy")
        assert answer.headers["retry-after"] == "1"
        assert "tokens of this client are waiting already" in error["message"]
        assert "1000 that may wait" in error["message"]
        waited = client.get("/metrics").text
        encoder.go.set()
        assert [future.result().status_code for future in waiting] == [200]
        assert embed(client, input=["a river"] * 30).status_code == 200
        done = client.get("/metrics").text
    assert "gme_queue_depth 1.0" in waited
    assert float(re.search(r"^gme_queue_tokens ([\d.]+)$", waited, re.M)[1]) > 1000
    assert "gme_queue_tokens 0.0" in done


def test_without_a_corpus_all_but_search_works(strict):
    answer = strict.post("/v1/search", json={"text": "x"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "no_corpus")
    assert "gme embed" in error_of(answer)["message"]
    assert strict.get("/v1/items/0/image").status_code == 404
    assert strict.get("/healthz").json()["corpus"] is None
