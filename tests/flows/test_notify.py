"""The webhook gets its message, and neither a deaf nor a dead one does harm or betrays its address."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.notify import notify
from flows.transient import is_transient
from gme_data.errors import FoundryError

Heard = list[dict[str, str]]


@pytest.fixture
def hook() -> Iterator[tuple[str, Heard]]:
    heard: Heard = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status = int(self.path.strip("/").partition("?")[0] or 200)
            self.send_response(status)
            if status in range(300, 400):
                self.send_header("Location", "/200?redirected")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_message_is_sent(hook: tuple[str, Heard], monkeypatch: pytest.MonkeyPatch) -> None:
    url, heard = hook
    monkeypatch.setenv("GME_WEBHOOK_URL", url)
    assert notify("gate-closed", "too low", "run-1")
    assert heard == [{"text": "GME Foundry: too low", "event": "gate-closed", "run": "run-1"}]


@pytest.mark.parametrize("address", ["{}/500?token=hush", "http://hush@127.0.0.1:1/", "file:///hush", "hush"])
def test_a_failing_webhook_is_survived_and_not_named(
    address: str, hook: tuple[str, Heard], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GME_WEBHOOK_URL", address.format(hook[0]))
    assert not notify("failed", "text")
    assert "did not take" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(hook: tuple[str, Heard], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GME_WEBHOOK_URL", f"{hook[0]}/{status}")
    assert not notify("failed", "text")
    assert len(hook[1]) == 1


def test_without_an_address_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GME_WEBHOOK_URL", raising=False)
    assert not notify("failed", "text")


def test_only_errors_of_the_network_are_tried_again() -> None:
    wrapped = RuntimeError("tracker")
    wrapped.__cause__ = ConnectionResetError()
    assert all(is_transient(error) for error in (wrapped, TimeoutError(), OSError(errno.ENETUNREACH, "")))
    no_disk = OSError(errno.ENOSPC, "")
    bad_input = FoundryError("bad")
    bad_input.__cause__ = ConnectionResetError()
    assert not any(is_transient(error) for error in (no_disk, bad_input, ValueError(), BrokenPipeError(), None))
