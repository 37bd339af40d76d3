"""Whatever comes as a body is answered 200 or 4xx in OpenAI's shape: the real application, its model a constant."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import pytest
from PIL import Image, ImageFile
from serving import ConstantEncoder, data_uri, error_of, png
from starlette.testclient import TestClient

from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.service import Service

pytestmark = pytest.mark.xdist_group("serve")

JSON = "application/json"
BOUNDARY = "multipart/form-data; boundary=b"
GIF_BOMB = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x00\x00\x00;"


@pytest.fixture(scope="module")
def encoder(embedder) -> ConstantEncoder:
    return ConstantEncoder(embedder.preparer)


@pytest.fixture(scope="module")
def client(encoder):
    service = Service("acme/tiny", encoder, RequestLimits(), Batching())
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield client


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def broken_png(kind: bytes, data: bytes) -> str:
    """A picture with one chunk of its own behind the header."""
    good = png(1)
    return data_uri(good[:33] + chunk(kind, data) + good[33:])


def item(**fields) -> str:
    return json.dumps({"input": [fields]})


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + head.encode("latin-1") + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end


def picture_part(name: str = 'name="image"; filename="x.png"', data: bytes | None = None) -> tuple[str, bytes]:
    return f"Content-Disposition: form-data; {name}", png(1) if data is None else data


def text_part(value: bytes, name: str = "text") -> tuple[str, bytes]:
    return f"Content-Disposition: form-data; name={name}", value


def post(client, body: str | bytes, kind: str = JSON):
    return client.post("/v1/embeddings", content=body, headers={b"Content-Type": kind.encode("latin-1")})


BODIES: dict[str, tuple[int, str | bytes]] = {
    # no JSON, or JSON of another kind
    "nothing": (400, b""),
    "a list": (400, "[]"),
    "null": (400, "null"),
    "a text": (400, '"x"'),
    "a number": (400, "1e999"),
    "cut off": (400, '{"input": "x"'),
    "a second value": (400, '{"input": "x"} {}'),
    "not UTF-8": (400, b'{"input": "\xff\xfe"}'),
    "UTF-16 cut off": (400, '{"input": "x"}'.encode("utf-16")[:-1]),
    "UTF-16": (400, '{"input": "x"}'.encode("utf-16")),
    "with a mark": (200, b'\xef\xbb\xbf{"input": "x"}'),
    "deep lists": (400, "[" * 100_000),
    "deep objects": (400, '{"a":' * 100_000),
    "deep within": (400, '{"input": ' + "[" * 500 + "]" * 500 + "}"),
    "deep and ignored": (400, '{"input": "x", "more": ' + "[" * 500 + "]" * 500 + "}"),
    "NUL bytes": (400, b"\x00" * 100),
    "a raw newline in a text": (400, '{"input": "a\nb"}'),
    "a bare escape": (400, '{"input": "\\u12"}'),
    # numbers
    "an integer of 5,000 digits": (400, '{"input": "x", "dimensions": ' + "9" * 5000 + "}"),
    "10**400 dimensions": (400, '{"input": "x", "dimensions": 1' + "0" * 400 + "}"),
    "negative dimensions": (400, '{"input": "x", "dimensions": -8}'),
    "NaN dimensions": (400, '{"input": "x", "dimensions": NaN}'),
    "infinite dimensions": (400, '{"input": "x", "dimensions": Infinity}'),
    "dimensions as a float": (400, '{"input": "x", "dimensions": 8.0}'),
    "dimensions as a truth": (400, '{"input": "x", "dimensions": true}'),
    "dimensions as a text": (400, '{"input": "x", "dimensions": "8"}'),
    "its own dimensions": (200, '{"input": "x", "dimensions": 8}'),
    "NaN as input": (400, '{"input": [NaN]}'),
    "NaN where it is ignored": (400, '{"input": "x", "temperature": NaN}'),
    # members
    "a truth": (400, '{"input": [true]}'),
    "a null": (400, '{"input": [null]}'),
    "a fraction": (400, '{"input": [0.5]}'),
    "an empty text": (400, '{"input": ""}'),
    "an empty text among others": (400, '{"input": ["a", ""]}'),
    "a blank": (200, '{"input": " "}'),
    "a list in a list of texts": (400, '{"input": ["a", ["b"]]}'),
    "a text of the wrong type": (400, item(text=5)),
    "a picture of the wrong type": (400, item(image=["data:,"])),
    "ids of no tokenizer": (400, '{"input": [1, 2]}'),
    "ids": (200, '{"input": [[1, 2]], "tokenizer": "acme/tiny"}'),
    "ids too large": (400, '{"input": [[99999999999999999999]], "tokenizer": "acme/tiny"}'),
    "ids below zero": (400, '{"input": [[-1]], "tokenizer": "acme/tiny"}'),
    "ids beyond the vocabulary": (400, '{"input": [[2147483647]], "tokenizer": "acme/tiny"}'),
    "70,000 ids": (400, json.dumps({"input": [[1] * 70_000], "tokenizer": "acme/tiny"})),
    "70,000 items": (400, json.dumps({"input": [{}] * 70_000})),
    "2,049 items": (400, json.dumps({"input": ["a"] * 2049})),
    # fields
    "a field twice": (200, '{"input": "a", "input": "b"}'),
    "unknown fields": (200, '{"input": "x", "input_type": "query", "": 0, "\\u0000": [1]}'),
    "half a pair as a name": (400, '{"input": "x", "\\ud83d": 1}'),
    "a name of a megabyte": (400, '{"input": "x", "' + "y" * 2**20 + '": 1}'),
    "a hundred fields": (400, json.dumps({"input": "x", **{str(n): n for n in range(100)}})),
    "another encoding": (400, '{"input": "x", "encoding_format": "hex"}'),
    "a name of 256 bytes": (200, json.dumps({"input": "x", "y" * 256: 1})),
    "a name of 257 bytes": (400, json.dumps({"input": "x", "y" * 257: 1, "z": "z" * 4096})),
    "no encoding": (200, '{"input": "x", "encoding_format": null}'),
    "a model that is a list": (400, '{"input": "x", "model": []}'),
    "half a pair as a model": (400, '{"input": "x", "model": "\\ud83d"}'),
    "half a pair as a tokenizer": (400, '{"input": [1], "tokenizer": "\\ud83d"}'),
    "half a pair as a user": (400, '{"input": "x", "user": "\\ud83d"}'),
    "a user that is a number": (400, '{"input": "x", "user": 5}'),
    "half a pair as an instruction": (400, '{"input": "x", "instruction": "\\ud83d"}'),
    "half a pair as a text": (400, '{"input": "\\udc00"}'),
    "half a pair as a title": (400, item(text="x", title="\ud83d")),
    "half a pair in a picture": (400, item(image="data:image/png;base64,\ud83d")),
    "NUL in a text": (200, '{"input": "a\\u0000b"}'),
    "NUL in an instruction": (200, '{"input": "x", "instruction": "a\\u0000b"}'),
    "control tokens": (200, '{"input": "<|endoftext|>"}'),
    "a text of 100,001 characters": (400, json.dumps({"input": "x" * 100_001})),
    # pictures
    "no bytes": (400, item(image="data:image/png;base64,")),
    "bad base64": (400, item(image="data:image/png;base64,A")),
    "no picture": (400, item(image=data_uri(b"hello"))),
    "an SVG": (400, item(image=data_uri(b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"))),
    "an address": (400, item(image="http://127.0.0.1/x.png")),
    "cut off picture": (400, item(image=data_uri(png(1)[:-40]))),
    "another kind than it says": (200, item(image=data_uri(png(1), "image/jpeg"))),
    "a header alone": (400, item(image=data_uri(png(1)[:33]))),
    "a size of zero": (400, item(image=data_uri(png(1)[:16] + b"\0" * 8 + png(1)[24:]))),
    "4 gigapixels": (400, item(image=data_uri(GIF_BOMB))),
    "an empty text beside a picture": (200, item(text="", image=data_uri(png(1)))),
    "a title and a picture": (200, item(title="T", image=data_uri(png(1)))),
}  # fmt: skip
for number, (kind, data) in enumerate(
    [(b"iCCP", b"x\0\0broken"), (b"tRNS", b""), (b"pHYs", b"\0"), (b"zTXt", b"k\0\x07"), (b"iTXt", b"\0" * 5),
     (b"gAMA", b"\0"), (b"acTL", b"\0" * 8), (b"eXIf", b"MM\0*"), (b"IDAT", b"\0"), (b"PLTE", b"\0")]
):  # fmt: skip
    BODIES[f"a picture with a broken chunk {number}"] = (0, item(image=broken_png(kind, data)))


def answered(answer, status: int) -> None:
    """It has the status, or with 0 whichever of 200 and 400; and the shape that goes with it."""
    assert answer.status_code in ({status} if status else {200, 400}), answer.text
    if answer.status_code == 200:
        body = answer.json()
        assert (body["object"], body["model"]) == ("list", "acme/tiny")
        assert [row["index"] for row in body["data"]] == list(range(len(body["data"])))
        assert {len(row["embedding"]) for row in body["data"]} == {8}
        return
    error = error_of(answer)
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert len(answer.content) < 2000, "what was sent is not sent back"
    assert "0x" not in error["message"], "an address in memory"


@pytest.mark.parametrize("name", BODIES)
def test_every_body_is_answered(client, name):
    status, body = BODIES[name]
    answered(post(client, body), status)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", BOUNDARY, "json", "\xff"]
)
def test_another_kind_of_body_is_refused(client, kind):
    answered(
        client.post("/v1/embeddings", content=b'{"input": "x"}', headers={b"Content-Type": kind.encode("latin-1")}), 400
    )


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.acme+json", "APPLICATION/JSON"])
def test_json_by_its_other_names_is_taken(client, kind):
    answered(post(client, '{"input": "x"}', kind), 200)


FORMS: dict[str, tuple[int, bytes]] = {
    "a picture": (200, form(picture_part())),
    "nothing": (400, b""),
    "no part": (400, b"--b--\r\n"),
    "no boundary": (400, b"hello"),
    "cut off": (0, form(picture_part(), end=b"")[:-20]),
    "no picture": (400, form(text_part(b"x"))),
    "an empty file": (400, form(picture_part(data=b""))),
    "a file that is no picture": (400, form(picture_part(data=b"hello"))),
    "a file without a name": (400, form(picture_part('name="image"'))),
    "a name that is not UTF-8": (0, form(picture_part('name="image"; filename="\xff\xfe.png"'))),
    "a name with a path": (200, form(picture_part('name="image"; filename="../../etc/passwd"'))),
    "a field that is not UTF-8": (400, form(picture_part(), text_part(b"\xff\xfe"))),
    "a field's name that is not UTF-8": (400, form(picture_part(), text_part(b"x", '"\xff"'))),
    "half a pair as WTF-8": (400, form(picture_part(), text_part(b"\xed\xa0\xbd"))),
    "NUL in a text": (200, form(picture_part(), text_part(b"a\0b"))),
    "an empty text": (200, form(picture_part(), text_part(b""))),
    "two pictures": (400, form(picture_part(), picture_part())),
    "two texts": (400, form(picture_part(), *[text_part(b"x")] * 2)),
    "a slip": (400, form(picture_part('name="imag"; filename="x.png"'))),
    "no disposition": (400, form(("X: y", b"x"))),
    "another model": (404, form(picture_part(), text_part(b"x", "model"))),
    "a field of two megabytes": (400, form(picture_part(), text_part(b"x" * 2**21))),
    "2,000 fields": (400, form(picture_part(), *[text_part(b"", f"f{n}") for n in range(2000)])),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_answered(client, name):
    status, body = FORMS[name]
    answered(client.post("/v1/embeddings/upload", content=body, headers={"Content-Type": BOUNDARY}), status)


def test_texts_of_forms_are_utf8_whatever_they_claim(client, encoder):
    encoder.calls.clear()
    text = "Bogot\u00e1 \U0001f40e \u00ff"
    body = form(picture_part(), text_part(text.encode()))
    for kind in (BOUNDARY, f"{BOUNDARY}; charset=utf-8", "multipart/form-data; charset=utf-16; boundary=b"):
        answered(client.post("/v1/embeddings/upload", content=body, headers={"Content-Type": kind}), 200)
    assert encoder.calls == [[text]] * 3
    latin = form(picture_part(), text_part("Bogot\u00e1".encode("latin-1")))
    answer = client.post("/v1/embeddings/upload", content=latin, headers={"Content-Type": BOUNDARY})
    assert (error_of(answer)["code"], error_of(answer)["param"]) == ("not_utf8", "text")


@pytest.mark.parametrize("kind", [JSON, "multipart/form-data", "text/plain", "application/x-www-form-urlencoded"])
def test_an_upload_that_is_no_form_is_refused(client, kind):
    answered(client.post("/v1/embeddings/upload", content=form(picture_part()), headers={"Content-Type": kind}), 400)


@pytest.mark.parametrize(
    "body",
    ['{"text": "x", "k": 1' + "0" * 400 + "}", '{"text": "x", "k": NaN}', '{"text": "x", "k": true}',
     '{"text": "x", "k": 1.0}', '{"text": "x", "\\ud83d": 1}', '{"text": "x", "' + "y" * 2**20 + '": 1}', "[]", "null",
     '{"text": "", "image": null}', '{"image": ""}', '{"text": ["x"]}'],
)  # fmt: skip
def test_every_bad_search_is_answered(client, body):
    answer = client.post("/v1/search", content=body, headers={"Content-Type": JSON})
    assert answer.status_code in {400, 404}
    assert error_of(answer)["message"]


@pytest.mark.parametrize("row", ["9" * 400, "9" * 5000, "-1", "1.5", "%00", "%ff", "x"])
def test_every_row_is_answered(client, row):
    answer = client.get(f"/v1/items/{row}/image")
    assert answer.status_code in {400, 404}
    assert error_of(answer)["message"]


def test_a_decoder_that_fails_in_its_own_way_refuses_the_item(client, monkeypatch):
    """Pillow's readers raise what nobody foresaw (IndexError, struct.error, ...) over some damaged file or other."""

    def fail(*_):
        raise IndexError("index out of range")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    answer = client.post(
        "/v1/embeddings",
        content=json.dumps({"input": ["x", {"image": data_uri(png(1))}]}),
        headers={"Content-Type": JSON},
    )
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input[1]")


def test_2048_items_by_default(client, encoder):
    texts = [f"text {n}" for n in range(2048)]
    encoder.calls.clear()
    body = client.post("/v1/embeddings", json={"input": texts, "encoding_format": "base64"}).json()
    assert [row["index"] for row in body["data"]] == list(range(2048))
    assert {len(base64.b64decode(row["embedding"])) for row in body["data"]} == {32}
    assert [text for call in encoder.calls for text in call] == texts
    assert len(encoder.calls) > 10, "computed in parts that others may come between"


def test_an_instruction_without_room_is_told_once_and_as_itself(client, encoder):
    done = len(encoder.calls)
    for items in ("x", ["x"] * 500, [{"image": data_uri(png(1))}]):
        answer = post(client, json.dumps({"input": items, "instruction": " word" * 300}))
        assert answer.status_code == 400
        error = error_of(answer)
        assert error["param"] == "instruction"
        assert error["message"].startswith("instruction: The instruction of 300 tokens leaves room for 0 tokens of a")
        assert "Shorten the instruction to" in error["message"]
    assert len(encoder.calls) == done


def test_a_bad_item_among_many_is_named(client):
    texts = [*["x"] * 1500, {"image": data_uri(png(1)[:-40])}, *["x"] * 400]
    error = error_of(client.post("/v1/embeddings", json={"input": texts}))
    assert (error["param"], error["code"]) == ("input[1500]", "bad_item")
    assert error["message"].startswith("input[1500]: ")
    assert "Item" not in error["message"]


def test_a_request_is_priced_by_its_tokens(encoder):
    """By the prompt that each item costs before anything is tokenised, then by the texts, window by window."""
    encoder.calls.clear()
    service = Service("acme/tiny", encoder, RequestLimits(max_request_tokens=5000), Batching())
    with TestClient(create_app(service)) as client:
        for texts in (["a"] * 2000, ["a river of words " * 400] * 60):
            error = error_of(client.post("/v1/embeddings", json={"input": texts}))
            assert (error["code"], error["param"]) == ("max_tokens_per_request", "input")
            assert "this server takes 5000 in one request" in error["message"]
        long = {"input": ["a river"] * 100, "instruction": "Find the river. " * 20}
        assert error_of(client.post("/v1/embeddings", json=long))["code"] == "max_tokens_per_request", (
            "it goes with each"
        )
        assert not encoder.calls
        assert client.post("/v1/embeddings", json={"input": ["a river"] * 100}).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[" * 100_000, "recursion limit exceeded"),
        ('{"input": "x", "more": ' + "[" * 70 + "]" * 70 + "}", "nested more than 64 deep"),
        (b'{"input": "\xff"}', "invalid unicode code point at line 1 column 12"),
        ('{"input": ' + "9" * 5000 + "}", "number out of range"),
        ('{"input": "x", "user": 1e999}', "inf, which is not finite"),
        ('{"input": "x", "seed": 9223372036854775808}', "a whole number beyond 64 bits"),
        ('{"input": "\\ud83d"}', "unexpected end of hex escape"),
        ("", "EOF while parsing"),
    ],
    ids=["deep", "rather deep", "bytes", "digits", "infinite", "65 bits", "half a pair", "nothing"],
)
def test_what_keeps_a_body_from_being_read_is_named(client, body, message):
    assert message in error_of(post(client, body))["message"]


def test_pixels_of_a_request_are_bounded(encoder):
    """Blank pictures are small: a body of megabytes would be minutes of decoding."""
    buffer = io.BytesIO()
    Image.new("1", (100, 100)).save(buffer, "PNG")
    picture = {"image": data_uri(buffer.getvalue())}
    service = Service("acme/tiny", encoder, RequestLimits(max_request_pixels=50_000), Batching())
    with TestClient(create_app(service)) as client:
        assert client.post("/v1/embeddings", json={"input": [picture] * 5}).status_code == 200
        error = error_of(client.post("/v1/embeddings", json={"input": [picture] * 6}))
    assert (error["code"], error["param"]) == ("too_many_pixels", "input[5]")
    assert "60000 pixels; this server takes 50000 in one request" in error["message"]
