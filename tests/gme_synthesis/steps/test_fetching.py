"""Fetching what strangers point to: public hosts only, at every hop, and never more than allowed."""

from __future__ import annotations

import gzip
import ipaddress
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from bad_server import Answer, Asked, Reply, Stub, path_of, serve
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.images import ImageRecord
from gme_data.settings import parse_config
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.steps.addresses import is_public
from gme_synthesis.steps.fetching import FetchConfig, FetchedFile, Fetcher, FetchError
from gme_synthesis.steps.web_search import WebSearch, WebSearchConfig


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.0.1", False), ("172.16.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),  # noqa: S104
        ("255.255.255.255", False), ("::1", False), ("::", False), ("fe80::1", False), ("fc00::1", False),
        ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True), ("64:ff9b::7f00:1", False), ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False), ("ff02::1", False), ("::127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False), ("::ffff:0:7f00:1", False), ("fec0::1", False), ("fd00:ec2::254", False),
        ("192.88.99.1", False), ("192.88.99.2", False), ("192.0.0.8", False), ("192.0.0.170", False),
        ("192.0.0.9", True), ("192.0.0.10", True), ("192.0.1.1", True), ("192.0.2.1", False), ("198.18.0.1", False),
        ("192.31.196.1", False), ("192.52.193.1", False), ("192.175.48.1", False), ("240.0.0.1", False),
        ("3fff::1", False), ("3fff:fff::1", False), ("2620:4f:8000::1", False), ("2620:4f:8001::1", True),
        ("2001::1", False), ("2001:1::1", False), ("2001:20::1", False), ("2001:1ff::1", False), ("2001:200::1", True),
        ("2001:0:808:808::808:808", False), ("2002:808:808::1", False), ("2001:db8::1", False), ("5f00::1", False),
        ("2000::5efe:7f00:1", False), ("2000::200:5efe:a00:1", False), ("2a00::5efe:808:808", True), ("100::1", False),
        ("64:ff9b:1::808:808", False), ("::ffff:192.0.0.8", False), ("64:ff9b::c058:6301", False), ("4000::1", False),
    ],
)  # fmt: skip
@pytest.mark.hardening("attacks", "A11", "Addresses of pictures that lead inside")
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{port}/x", "private-address"),
        ("http://localhost:{port}/x", "private-address"),
        ("http://[::1]:{port}/x", "private-address"),
        ("http://[::ffff:127.0.0.1]:{port}/x", "private-address"),
        ("http://2130706433:{port}/x", "bad-address"),
        ("http://0x7f.1:{port}/x", "private-address"),
        ("http://127.1:{port}/x", "bad-address"),
        ("http://①②⑦.0.0.1:{port}/x", "private-address"),
        ("http://127。0。0。1:{port}/x", "private-address"),
        ("http://[::127.0.0.1]:{port}/x", "private-address"),
        ("http://0.0.0.0:{port}/x", "private-address"),
        ("http://0:{port}/x", "bad-address"),
        ("http://169.254.169.254/latest/meta-data", "private-address"),
        ("file:///etc/passwd", "bad-address"),
        ("ftp://example.org/x", "bad-address"),
        ("http://user:secret@example.org/", "bad-address"),
        ("http://", "bad-address"),
        ("", "bad-address"),
        ("http://[", "no-answer"),
    ],
)
@pytest.mark.hardening("attacks", "A11", "Addresses of pictures that lead inside")
def test_nothing_private_is_asked(url: str, reason: str) -> None:
    with serve(lambda _: Answer(body=b"secret")) as stub:
        fetcher = Fetcher(FetchConfig(obey_robots_txt=False, timeout_seconds=5))
        assert fetcher.fetch([url.format(port=stub.port)]) == [reason]
        fetcher.close()
    assert not stub.asked


@contextmanager
def fetching(reply: Reply, **config: Any) -> Iterator[tuple[Fetcher, Stub]]:
    """A fetcher for which 127.0.0.1, and only that, counts as public."""
    with serve(reply) as stub:
        settings = FetchConfig.model_validate({"timeout_seconds": 2, "obey_robots_txt": False, **config})
        fetcher = Fetcher(settings, allowed=lambda address: str(address) == "127.0.0.1")
        try:
            yield fetcher, stub
        finally:
            fetcher.close()


@pytest.mark.hardening("attacks", "A11", "Addresses of pictures that lead inside")
def test_the_address_that_is_judged_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address for whoever checks it and to a private one for whoever connects."""
    answers = ["8.8.8.8", "127.0.0.1", "127.0.0.1"]
    real = socket.getaddrinfo

    def rebinding(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "rebinding.example":
            return real(host, *arguments, **options)
        return real(answers.pop(0), *arguments, **options)

    with serve(lambda _: Answer(body=b"secret")) as stub:
        fetcher = Fetcher(FetchConfig(obey_robots_txt=False, timeout_seconds=2), allowed=is_public)
        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        url = f"http://rebinding.example:{stub.port}/x"
        answers.pop(0)  # a check of its own before the connection would have seen this one
        assert fetcher.fetch([url]) == ["private-address"]
        fetcher.close()
    assert not stub.asked


def test_a_redirect_is_followed_and_judged_again() -> None:
    targets = {
        "/ok": "/there",
        "/inside": "http://127.0.0.2/secret",
        "/meta": "http://169.254.169.254/",
        "/loop": "/loop",
    }

    def reply(asked: Asked) -> Answer:
        path = path_of(asked)
        return Answer(302, headers={"Location": targets[path]}) if path in targets else Answer(body=b"here")

    with fetching(reply, other_hosts=True) as (fetcher, stub):
        found = fetcher.fetch([f"{stub.url}{path}" for path in targets])
    assert found == [
        FetchedFile(b"here", f"{stub.url}/there"),
        "private-address",
        "private-address",
        "too-many-redirects",
    ]


def test_a_redirect_asks_the_robots_of_the_next_host_and_never_leaves_encryption() -> None:
    def refusing(asked: Asked) -> Answer:
        return Answer(body=b"User-agent: *\nDisallow: /" if path_of(asked) == "/robots.txt" else b"x")

    with serve(refusing) as other:

        def moved(asked: Asked) -> Answer:
            to = {"Location": f"http://127.0.0.1:{other.port}/picture.png"}
            return Answer(404) if path_of(asked) == "/robots.txt" else Answer(302, headers=to)

        with fetching(moved, obey_robots_txt=True) as (fetcher, stub):
            assert fetcher.fetch([f"{stub.url}/a.png"]) == ["redirect-elsewhere"]
        assert not other.asked, "nobody else is asked unless the config says so"
        with fetching(moved, obey_robots_txt=True, other_hosts=True) as (fetcher, stub):
            assert fetcher.fetch([f"{stub.url}/a.png"]) == ["robots"]
        assert [path_of(asked) for asked in other.asked] == ["/robots.txt"]


@pytest.mark.parametrize(
    ("url", "to", "reason"),
    [
        ("https://a/x", "https://a:443/y", None),
        ("http://a/x", "/y", None),
        ("http://a/x", "https://a/x", None),
        ("http://a:80/x", "https://a:443/x", None),
        ("http://a/x", "https://a:8443/x", "redirect-elsewhere"),
        ("http://a:8080/x", "https://a/x", "redirect-elsewhere"),
        ("http://a/x", "http://a:81/y", "redirect-elsewhere"),
        ("http://a/x", "//b/y", "redirect-elsewhere"),
        ("http://a/x", "https://b/x", "redirect-elsewhere"),
        ("https://a/x", "https://a@b/x", "redirect-elsewhere"),
        ("https://a/x", "http://a/y", "redirect-to-plain-http"),
    ],
)
@pytest.mark.hardening("attacks", "A11", "Addresses of pictures that lead inside")
def test_a_redirect_stays_within_its_origin_unless_told(url: str, to: str, reason: str | None) -> None:
    fetcher = Fetcher(FetchConfig())
    if reason is None:
        assert fetcher._redirected(url, to) == urljoin(url, to)
    else:
        with pytest.raises(FetchError, match=reason):
            fetcher._redirected(url, to)
    with pytest.raises(FetchError, match="redirect-to-plain-http"):
        Fetcher(FetchConfig(other_hosts=True))._redirected("https://a/x", "http://b/y")
    fetcher.close()


def test_bytes_time_and_status_are_bounded() -> None:
    answers = {
        "/big": Answer(body=b"x" * 300_000), "/slow": Answer(hang=3), "/gone": Answer(404), "/empty": Answer(body=b""),
    }  # fmt: skip
    with fetching(lambda asked: answers[path_of(asked)], max_bytes=100_000, timeout_seconds=0.5) as (fetcher, stub):
        found = fetcher.fetch([f"{stub.url}{path}" for path in answers])
    assert found == ["too-large", "timeout", "status-404", FetchedFile(b"", f"{stub.url}/empty")]


def test_a_file_that_would_unpack_to_more_is_not_unpacked() -> None:
    packed = gzip.compress(b"x" * 50_000_000)
    answer = Answer(body=packed, headers={"Content-Encoding": "gzip"})
    with fetching(lambda _: answer, max_bytes=100_000) as (fetcher, stub):
        assert fetcher.fetch([f"{stub.url}/bomb"]) == [FetchedFile(packed, f"{stub.url}/bomb")]


def test_robots_are_heeded() -> None:
    def reply(asked: Asked) -> Answer:
        return Answer(body=b"User-agent: *\nDisallow: /private" if path_of(asked) == "/robots.txt" else b"x")

    with fetching(reply, obey_robots_txt=True) as (fetcher, stub):
        found = fetcher.fetch([f"{stub.url}/private/a.png", f"{stub.url}/public/a.png"])
    assert found == ["robots", FetchedFile(b"x", f"{stub.url}/public/a.png")]
    assert "/private/a.png" not in {asked.path for asked in stub.asked}


PNG = Path(__file__).parents[3] / "examples" / "own-corpus" / "pictures" / "alfa-1.png"


Searching = tuple[WebSearch, Stub, list[ImageRecord]]


@contextmanager
def searching(
    tmp_path: Path, items: list[dict[str, Any]], **config: Any
) -> Iterator[tuple[WebSearch, Stub, list[ImageRecord]]]:
    """A search service and the host of its pictures in one."""
    kept: list[ImageRecord] = []

    def reply(asked: Asked) -> Answer:
        files = {
            "/flag.png": PNG.read_bytes(),
            "/page.png": b"<html>not a picture</html>",
            "/cut.png": PNG.read_bytes()[:100],
        }
        if path_of(asked) == "/search":
            here = [{**item, "link": item["link"].format(url=stub.url)} for item in items]
            return Answer(body=json.dumps({"found": {"items": here}}).encode())
        return Answer(body=files[path_of(asked)])

    with fetching(reply) as (fetcher, stub):
        settings = WebSearchConfig.model_validate({"url": f"{stub.url}/search", "results": "found.items", **config})
        yield WebSearch(settings, RequestJournal(tmp_path), fetcher, fetcher, kept.append), stub, kept


def test_a_search_service_finds_pictures_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GME_SEARCH_KEY", "secret")
    items = [
        {"link": "{url}/flag.png", "licence": "CC-BY-4.0"},
        {"link": "{url}/page.png"},
        {"link": "{url}/cut.png"},
        {"link": "http://10.0.0.1/inside.png"},
        {"link": "{url}/other.png", "robots": "noindex, nofollow"},
        {"title": "no picture", "link": ""},
    ]
    with searching(tmp_path, items) as (search, stub, kept):
        (entity_images, same) = search.find(["Alfa", "Alfa"], 5)
        assert entity_images == same
        assert [sight.image for sight in entity_images] == [record.id for record in kept]
        assert (kept[0].licence, kept[0].source) == ("CC-BY-4.0", f"{stub.url}/flag.png")
        assert search.problems == {"robots": 1, "not-a-picture": 2, "private-address": 1}
        asked = [one.path for one in stub.asked if path_of(one) == "/search"]
        assert asked == ["/search?q=Alfa&key=secret"]
        search.find(["Alfa"], 5)
        assert len([one for one in stub.asked if path_of(one) == "/search"]) == 1
    assert "secret" not in "".join(str(path.read_bytes()) for path in tmp_path.glob("*"))


def test_licences_are_chosen_and_unknown_ones_say_so(tmp_path: Path) -> None:
    items = [{"link": "{url}/flag.png", "licence": "all rights reserved"}]
    with searching(tmp_path, items, allow=["CC0-1.0"]) as (search, _, kept):
        assert search.find(["Alfa"], 5) == [[]]
        assert search.problems == {"licence": 1}
    with searching(tmp_path / "b", [{"link": "{url}/flag.png"}]) as (search, _, kept):
        search.find(["Alfa"], 5)
        assert [record.licence for record in kept] == ["unknown"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1, 2]", b'{"found": {"items": 7}}', b'{"found": null}', b"x" * 200_000]
)
def test_a_service_that_talks_nonsense_finds_nothing(tmp_path: Path, body: bytes) -> None:
    with fetching(lambda _: Answer(body=body), max_bytes=100_000) as (fetcher, stub):
        config = WebSearchConfig(url=f"{stub.url}/search", results="found.items")
        search = WebSearch(config, RequestJournal(tmp_path), fetcher, fetcher, lambda _: None)
        assert search.find(["Alfa"], 5) == [[]]


def test_a_refused_key_stops_the_run(tmp_path: Path) -> None:
    with fetching(lambda _: Answer(403)) as (fetcher, stub):
        config = WebSearchConfig(url=f"{stub.url}/search")
        search = WebSearch(config, RequestJournal(tmp_path), fetcher, fetcher, lambda _: None)
        with pytest.raises(FoundryError, match="refused the key"):
            search.find(["Alfa"], 5)


def test_the_example_picture_is_one() -> None:
    assert Image.open(PNG).size == (80, 80)


def test_a_field_of_an_earlier_version_is_told_by_its_new_name() -> None:
    with pytest.raises(FoundryError, match="heed_robots: this field is called obey_robots_txt now"):
        parse_config({"heed_robots": 8}, FetchConfig, where="x.yaml")
