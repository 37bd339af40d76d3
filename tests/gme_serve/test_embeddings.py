"""`/v1/embeddings`: served vectors are those of `encode`, whoever else asks; errors have the shape of OpenAI."""

from __future__ import annotations

import base64
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import data_uri, error_of, png

from gme_embedder.corpus.vector_folder import open_index

pytestmark = pytest.mark.xdist_group("serve")


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [row["index"] for row in data] == list(range(len(data)))
    return np.asarray([row["embedding"] for row in data], dtype=np.float32)


def samples(client: httpx.Client) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_kind_of_item_equals_offline(client, embedder):
    items_sent = [
        "Santiago",
        {"text": "Lima"},
        {"image": data_uri(png(1))},
        {"title": "T", "text": "x", "image": data_uri(png(2))},
    ]
    same = ["Santiago", {"text": "Lima"}, {"image": png(1)}, {"title": "T", "text": "x", "image": png(2)}]
    answer = client.post("/v1/embeddings", json={"input": items_sent, "model": "model", "user": "somebody"})
    np.testing.assert_allclose(vectors(answer), embedder.encode(same), atol=1e-6)
    body = answer.json()
    assert (body["object"], body["model"]) == ("list", "model")
    tokens = sum(len(item.ids) for item in embedder.preparer.tokenise(same))
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_an_instruction_changes_the_vector_as_offline(client, embedder):
    answer = client.post("/v1/embeddings", json={"input": "Lima", "instruction": "Find a passage."})
    np.testing.assert_allclose(vectors(answer), embedder.encode(["Lima"], "Find a passage."), atol=1e-6)


def test_as_the_openai_client_asks(client, embedder):
    """It wants base64 by default, sends a key even where none is needed, and names the model."""
    body = {"input": ["Santiago", "Lima"], "model": "model", "encoding_format": "base64"}
    data = client.post("/v1/embeddings", json=body, headers={"Authorization": "Bearer any"}).json()["data"]
    got = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in data]
    np.testing.assert_allclose(np.stack(got), embedder.encode(["Santiago", "Lima"]), atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"text": "a flag", "instruction": "Find the same."}])
def test_an_uploaded_picture_equals_offline(client, embedder, more):
    answer = client.post("/v1/embeddings/upload", files={"image": ("flag.png", png(3))}, data=more)
    item = {"image": png(3), **({"text": more["text"]} if more else {})}
    np.testing.assert_allclose(vectors(answer), embedder.encode([item], more.get("instruction")), atol=1e-6)


def test_many_at_once_with_mixed_instructions_equal_offline(client, embedder):
    dice = random.Random(5)
    instructions = [None, "Find a passage.", "Find a picture."]
    requests = [
        ([dice.choice(["Lima", "A river of 1,204 km " * dice.randint(1, 20), png(dice.randint(0, 9))])
          for _ in range(dice.randint(1, 6))], dice.choice(instructions))
        for _ in range(40)
    ]  # fmt: skip

    def ask(request):
        items, instruction = request
        items_sent = [{"image": data_uri(item)} if isinstance(item, bytes) else item for item in items]
        return vectors(client.post("/v1/embeddings", json={"input": items_sent, "instruction": instruction}))

    before = samples(client)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, requests))
    for (items, instruction), got in zip(requests, answers, strict=True):
        same = [{"image": item} if isinstance(item, bytes) else item for item in items]
        np.testing.assert_allclose(got, embedder.encode(same, instruction), atol=1e-6)
    after = samples(client)
    grown = {name: after[(name,)] - before[(name,)] for name in ("gme_items_total", "gme_batch_tokens_count")}
    assert grown["gme_items_total"] == sum(len(items) for items, _ in requests)
    assert grown["gme_batch_tokens_count"] < len(requests), "requests were computed together"


def test_metrics_count_what_was_asked(client):
    before = samples(client)
    tokens = client.post("/v1/embeddings", json={"input": ["a", "b c"]}).json()["usage"]["total_tokens"]
    client.post("/v1/embeddings", json={"input": []})
    client.get("/made/up/by/a/client")
    after = samples(client)
    grown = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    assert grown[("gme_requests_total", "/v1/embeddings", "200")] == 1
    assert grown[("gme_requests_total", "/v1/embeddings", "400")] == 1
    assert grown[("gme_requests_total", "none", "404")] == 1
    assert grown[("gme_items_total",)] == 2
    assert grown[("gme_tokens_total",)] == grown[("gme_batch_tokens_sum",)] == tokens
    assert grown[("gme_request_seconds_count", "/v1/embeddings")] == 2
    assert after[("gme_queue_depth",)] == 0
    assert not any("made" in part for name in after for part in name)


def test_what_is_served(client, embedder, home):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("model", "model")
    state = client.get("/healthz").json()
    assert state == {
        "ready": True, "model": "model", "dimension": embedder.dimension, "corpus": 12, "key_required": False,
        "index": open_index(home / "vectors").digest,
    }  # fmt: skip
    assert client.get("/docs").status_code == 404
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/embeddings", "/v1/embeddings/upload", "/v1/search"} <= set(paths)


def test_dimensions_are_taken_only_as_trained(client, embedder):
    ask = {"input": "x", "dimensions": embedder.dimension}
    assert vectors(client.post("/v1/embeddings", json=ask)).shape == (1, embedder.dimension)
    answer = client.post("/v1/embeddings", json={"input": "x", "dimensions": 64})
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, "dimensions", "dimensions_not_supported")
    assert "not trained for shortened embeddings" in error["message"]


def test_names_of_models_have_slashes(strict):
    (model,) = strict.get("/v1/models").json()["data"]
    assert model == {
        "id": "acme/tiny",
        "object": "model",
        "owned_by": "gme",
        **{k: model[k] for k in ("created", "dimension")},
    }
    assert isinstance(model["created"], int)
    assert time.time() - model["created"] < 3600
    for path in ("acme/tiny", "acme%2Ftiny"):
        assert strict.get(f"/v1/models/{path}").json() == model
    assert strict.get("/v1/models/").json() == strict.get("/v1/models").json()
    for path in ("acme", "acme/tiny/x", "gpt-4", "%00", "%F0%9F%90%8E", "x" * 4000):
        answer = strict.get(f"/v1/models/{path}")
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["param"], error["code"]) == (
            404, "invalid_request_error", "model", "model_not_found"
        )  # fmt: skip


NULLS = dict.fromkeys(("model", "instruction", "encoding_format", "dimensions", "user", "tokenizer"))


def test_null_is_as_if_left_out(client, embedder):
    np.testing.assert_allclose(
        vectors(
            client.post("/v1/embeddings", json={"input": [{"text": "Lima", "title": None, "image": None}], **NULLS})
        ),
        embedder.encode(["Lima"]),
        atol=1e-6,
    )


def test_fields_that_clients_add_are_ignored_and_named(client, embedder):
    added = {
        "input_type": "query",
        "truncate_prompt_tokens": 3,
        "metadata": {"a": [None]},
        "timeout": 5,
        "extra, \n\u00e9": 1,
    }
    body = json.dumps({"input": "Lima", **added})
    answer = client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    np.testing.assert_allclose(vectors(answer), embedder.encode(["Lima"]), atol=1e-6)
    named = answer.headers["x-ignored-fields"].split(", ")
    assert named == ["input_type", "truncate_prompt_tokens", "metadata", "timeout", "extra%2C%20%0A%C3%A9"]
    assert "x-ignored-fields" not in client.post("/v1/embeddings", json={"input": "Lima"}).headers


@pytest.mark.parametrize(
    ("name", "meant"),
    [("instuction", "instruction"), ("instructions", "instruction"), ("instruct", "instruction"), ("INPUTS", "input"),
     ("dimension", "dimensions"), ("encodingFormat", "encoding_format"), ("tokeniser", "tokenizer")],
)  # fmt: skip
def test_a_slip_in_a_field_that_decides_the_vector_is_refused(client, name, meant):
    answer = client.post("/v1/embeddings", json={"input": "x", name: "y"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "unknown_field")
    assert f"Did you mean '{meant}'?" in error_of(answer)["message"]


def test_token_ids_are_taken_of_the_served_tokenizer_only(client, embedder):
    texts = ["Lima", "<b>bold</b> \u00e9\U0001f40e \x00"]
    ids = [embedder.preparer.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    same = embedder.encode(texts)
    named = {"tokenizer": "model"}
    np.testing.assert_allclose(vectors(client.post("/v1/embeddings", json={"input": ids, **named})), same, atol=1e-6)
    np.testing.assert_allclose(
        vectors(client.post("/v1/embeddings", json={"input": ids[0], **named})), same[:1], atol=1e-6
    )
    mixed = [{"token_ids": ids[0], "image": data_uri(png(1))}, "Lima"]
    np.testing.assert_allclose(
        vectors(client.post("/v1/embeddings", json={"input": mixed, **named})),
        embedder.encode([{"text": "Lima", "image": png(1)}, "Lima"]),
        atol=1e-6,
    )
    for more in ({}, {"model": "model"}, {"tokenizer": None}):
        error = error_of(client.post("/v1/embeddings", json={"input": ids, **more}))
        assert (error["code"], error["param"]) == ("token_ids", "input")
        assert "check_embedding_ctx_length=False" in error["message"]
    error = error_of(client.post("/v1/embeddings", json={"input": ids, "tokenizer": "cl100k_base"}))
    assert (error["code"], error["param"]) == ("tokenizer_not_served", "tokenizer")
    cut = embedder.preparer.tokenizer.encode("\U0001f40e", add_special_tokens=False).ids[:-1]
    assert cut
    error = error_of(client.post("/v1/embeddings", json={"input": ["x", cut], **named}))
    assert (error["code"], error["param"]) == ("bad_token_ids", "input[1]")
    size = embedder.preparer.tokenizer.get_vocab_size()
    error = error_of(client.post("/v1/embeddings", json={"input": [size], **named}))
    assert (error["code"], error["param"]) == ("unknown_token", "input[0]")


def test_blank_texts_are_taken_and_empty_ones_refused_as_by_openai(client, embedder):
    assert vectors(client.post("/v1/embeddings", json={"input": [" ", "\n"]})).shape == (2, embedder.dimension)
    picture = {"text": "", "image": data_uri(png(1))}
    np.testing.assert_allclose(
        vectors(client.post("/v1/embeddings", json={"input": [picture]})),
        embedder.encode([{"image": png(1)}]),
        atol=1e-6,
    )
    for body, param in (
        ("", "input[0]"), ([""], "input[0]"), (["a", ""], "input[1]"), (["a", {"text": ""}], "input[1]"),
        ([{"title": "", "text": ""}], "input[0]"), ([{"title": ""}], "input[0]"), ([[]], "input[0]"),
    ):  # fmt: skip
        answer = client.post("/v1/embeddings", json={"input": body})
        assert (answer.status_code, error_of(answer)["param"]) == (400, param)
        assert "input cannot be an empty string" in error_of(answer)["message"]


BAD = [
    ({"inputs": "x"}, None, "Unknown field 'inputs'. Did you mean 'input'?"),
    ({"input": "x", "dimension": 3}, None, "Did you mean 'dimensions'?"),
    ({"input": [{"txt": "x"}]}, "input[0]", "Unknown field 'txt'. Did you mean 'text'?"),
    ({"input": [{"text": "x", "image_url": "y"}]}, "input[0]", "Unknown field 'image_url'."),
    ({}, "input", "Field required"),
    ({"input": []}, "input", "at least one item"),
    ({"input": 3}, "input", "a text, or a list"),
    ({"input": None}, "input", "a text, or a list"),
    ({"input": {"text": "x"}}, "input", "a text, or a list"),
    ({"input": [1, 2, 3]}, "input", "Token ids are taken only with `tokenizer`"),
    ({"input": [[1, 2], [3]]}, "input", "Token ids are taken only with `tokenizer`"),
    ({"input": [1, "x"], "tokenizer": "model"}, "input[0].token_ids[1]", "valid integer"),
    ({"input": [[1, True]], "tokenizer": "model"}, "input[0].token_ids[1]", "valid integer"),
    ({"input": [{"token_ids": [1], "text": "x"}], "tokenizer": "model"}, "input[0]", "not both"),
    ({"input": ["x", {}]}, "input[1]", "needs a text, an image, or both"),
    ({"input": ["x", None]}, "input[1]", "found null"),
    ({"input": [True]}, "input[0]", "found a boolean"),
    ({"input": ["x", 1.5]}, "input[1]", "found a number"),
    ({"input": ["x", 7]}, "input[1]", "found a number"),
    ({"input": "x", "instruction": 5}, "instruction", "valid string"),
    ({"input": "x", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
    ({"input": "x", "dimensions": "64"}, "dimensions", "valid integer"),
    ({"input": "x", "dimensions": True}, "dimensions", "valid integer"),
    ({"input": "half of a pair: \ud83d"}, None, "unexpected end of hex escape at line 1 column 34"),
    ({"\ud83d": 1}, None, "unexpected end of hex escape"),
    ({"input": [{"\u00e9": 1}]}, "input[0]", "Unknown field '\\xe9'"),
    ({"input": [{"image": "/etc/passwd"}]}, "input[0].image", "reads no paths and fetches no addresses"),
    ({"input": [{"image": "file:///etc/passwd"}]}, "input[0].image", "Expected a data: URI"),
    ({"input": [{"image": "http://localhost/x.png"}]}, "input[0].image", "Expected a data: URI"),
    ({"input": [{"image": "data:image/png;base64,@@@"}]}, "input[0]", "base64 is damaged"),
    ({"input": [{"image": data_uri(b"hello")}]}, "input[0]", "not a readable picture"),
    ({"input": ["x", {"image": data_uri(png(1)[:-40])}]}, "input[1]", "picture is damaged"),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_body_is_refused_with_its_field(client, body, param, message):
    answer = client.post("/v1/embeddings", content=json.dumps(body), headers={"Content-Type": "application/json"})
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert message in error["message"]
    assert "0x" not in error["message"], "an address in memory"


@pytest.mark.parametrize("content", [b"", b"[]", b"nope", b'{"input": "x"', b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_refused(client, content):
    answer = client.post("/v1/embeddings", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert error_of(answer)["message"]


def test_json_without_its_header_is_refused(client):
    answer = client.post("/v1/embeddings", content=b'{"input": "x"}')
    assert answer.status_code == 400
    assert "Content-Type: application/json" in error_of(answer)["message"]


def test_another_model_is_not_served(client):
    answer = client.post("/v1/embeddings", json={"input": "x", "model": "text-embedding-3-small"})
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "Use 'model'" in error["message"]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"data": {"imag": "x"}}, "Did you mean 'image'?"),
        ({"files": {"imag": png(1)}}, "Did you mean 'image'?"),
        ({"data": {"image": "x"}}, "Expected a file, found a text"),
        ({"data": {"text": "x"}}, "Field required"),
        ({"files": {"image": b"hello"}}, "not a readable picture"),
        ({"files": {"image": png(1)}, "data": {"model": "other"}}, "is not served here"),
        ({"json": {"image": "x"}}, "Unknown Content-Type: application/json"),
    ],
)
def test_a_bad_upload_is_refused(client, form, message):
    answer = client.post("/v1/embeddings/upload", **form)
    assert answer.status_code in {400, 404}
    assert message in error_of(answer)["message"]


def test_unknown_addresses_and_methods(client):
    assert client.get("/v1/nothing").status_code == 404
    assert error_of(client.get("/v1/nothing"))["code"] == "not_found"
    answer = client.get("/v1/embeddings")
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_one_bad_item_fails_its_own_request_only(client, embedder):
    bodies = [{"input": "x", "dimensions": 1} if n % 3 else {"input": [f"text {n}"]} for n in range(12)]
    bodies[4] = {"input": [{"image": data_uri(png(2)[:-40])}]}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda body: client.post("/v1/embeddings", json=body), bodies))
    assert [answer.status_code for answer in answers] == [400 if n % 3 else 200 for n in range(12)]
    np.testing.assert_allclose(vectors(answers[3]), embedder.encode(["text 3"]), atol=1e-6)
