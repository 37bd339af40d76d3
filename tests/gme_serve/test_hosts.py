"""A server answers to its own names and its own pages only: a page that somebody merely opens can't use it."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.responses import PlainTextResponse

from gme_data.errors import FoundryError
from gme_serve.config import parse_keys
from gme_serve.gate import Host, HostsAllowed, KeyRequired, client_of, is_loopback, parse_hosts
from gme_serve.server import require_key

LOCAL = "http://127.0.0.1:8000"


def ask(app, headers: dict[str, str], *, server=("127.0.0.1", 8000), method: str = "GET") -> tuple[int, bytes]:
    """Status and body of what an ASGI application answers at an address."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "scheme": "http", "method": method, "path": "/v1/embeddings", "headers": raw,
             "server": server, "client": ("127.0.0.1", 50_000)}  # fmt: skip
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, None, send))
    assert not any(name == b"access-control-allow-origin" for name, _ in sent[0]["headers"])
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def status(headers: dict[str, str], *, server=("127.0.0.1", 8000), method: str = "GET", hosts=()) -> int:
    """What an application behind `HostsAllowed` answers."""
    app = HostsAllowed(PlainTextResponse("in"), parse_hosts(hosts))
    code, body = ask(app, headers, server=server, method=method)
    assert body == b"in" if code == 200 else set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    return code


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"])
def test_names_of_this_machine(host):
    assert status({"Host": host}) == 200


@pytest.mark.parametrize(
    "host",
    ["rebind.evil.example", "rebind.evil.example:8000", "127.0.0.1", "127.0.0.1:9000", "localhost", "0.0.0.0:8000",
     "127.0.0.1.evil.example:8000", "192.168.1.1.evil.example:8000", "127.0.0.2:8000", "localhost.:8000",
     "evil.localhost:8000", "10.0.0.1:8000"],
)  # fmt: skip
@pytest.mark.hardening("attacks", "A2", "A name of the attacker's that points at this machine (DNS rebinding)")
def test_names_of_others(host):
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        assert status({"Host": host}, method=method) == 403


@pytest.mark.parametrize("host", ["", "a b", "evil.example@127.0.0.1:8000", "127.0.0.1:99999", "127.0.0.1:x", "[::1"])
def test_what_is_no_host(host):
    assert status({"Host": host}) == 400


def test_a_server_for_others_is_known_by_its_address_and_by_what_it_is_told():
    at = ("10.0.0.7", 8000)
    assert status({"Host": "10.0.0.7:8000"}, server=at) == 200
    assert status({"Host": "localhost:8000"}, server=at) == 403
    assert status({"Host": "search.example.org"}, server=at) == 403
    assert status({"Host": "Search.Example.org"}, server=at, hosts=["search.example.org"]) == 200
    assert status({"Host": "search.example.org:1"}, server=at, hosts=["search.example.org"]) == 200
    assert status({"Host": "search.example.org:1"}, server=at, hosts=["search.example.org:2"]) == 403


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:3000"},
     {"Origin": "http://127.0.0.1"}, {"Origin": "http://localhost:8000"}, {"Origin": "http://127.0.0.1:8000.evil.example"},
     {"Origin": "ftp://127.0.0.1:8000"}, {"Origin": "file://"}, {"Origin": ""}, {"Origin": "chrome-extension://abc"},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
@pytest.mark.hardening("attacks", "A2", "A name of the attacker's that points at this machine (DNS rebinding)")
def test_pages_of_others(headers, method):
    assert status({"Host": "127.0.0.1:8000", **headers}, method=method) == 403


@pytest.mark.parametrize(
    "headers",
    [{"Origin": LOCAL}, {"Origin": LOCAL, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"},
     {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}],
)  # fmt: skip
def test_its_own_page_and_links_to_it(headers):
    assert status({"Host": "127.0.0.1:8000", **headers}) == 200


def test_its_page_behind_a_proxy_that_encrypts():
    origin = {"Origin": "https://search.example.org"}
    assert status({"Host": "search.example.org", **origin}, hosts=["search.example.org"]) == 200
    assert status({"Host": "127.0.0.1:8000", **origin}, hosts=["search.example.org"]) == 200
    assert status({"Host": "127.0.0.1:8000", **origin}) == 403
    assert (
        status({"Host": "search.example.org", "Origin": "https://search.example.org:9"}, hosts=["search.example.org"])
        == 403
    )


@pytest.mark.parametrize("written", ["", "http://x", "a b", "x/y", "x:99999", "a@b"])
def test_an_allowed_host_that_is_none_is_refused(written):
    with pytest.raises(FoundryError, match="--allowed-host"):
        parse_hosts([written])


def test_hosts_are_read_as_people_write_them():
    assert parse_hosts(["A.example", "b:80", "[::1]:81"]) == (Host("a.example", None), Host("b", 80), Host("::1", 81))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "1.1.1.1"])  # noqa: S104
def test_others_are_served_with_a_key_only(host):
    with pytest.raises(FoundryError, match="no API key is set") as refused:
        require_key(host, ())
    assert "GME_API_KEY" in str(refused.value.hint)
    require_key(host, ["key"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_is_served_without(host):
    require_key(host, ())


def test_what_begins_like_an_address_of_this_machine_is_none():
    assert [is_loopback(address) for address in ("127.0.0.1", "::1", "127.0.0.1.evil", "", "localhost")] == [
        True, True, False, False, False
    ]  # fmt: skip


def test_each_key_is_a_client():
    keys = parse_keys("one,two")

    async def app(scope, receive, send):
        await PlainTextResponse(client_of(scope))(scope, receive, send)

    gate = KeyRequired(app, keys)
    names = [ask(gate, {"Authorization": f"Bearer {key}"})[1].decode() for key in keys]
    assert len(set(names)) == 2
    assert not any(key in name for key in keys for name in names)
    assert ask(gate, {"Authorization": "Bearer one,two"})[0] == 401


@pytest.mark.parametrize("keys", ["", "a,", ",a", "a,,b", "a,a", "a, b"])
def test_lists_of_keys_that_are_none(keys):
    with pytest.raises(FoundryError, match="GME_API_KEY") as refused:
        parse_keys(keys)
    assert "a," not in str(refused.value)
