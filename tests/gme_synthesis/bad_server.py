"""A real HTTP server that behaves as badly as told, for the clients of language models and pictures."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    """What the server sends; `hang` keeps the connection open without a word."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0


Reply = Callable[["Asked"], Answer]


@dataclass
class Asked:
    """What the server was asked, and how often so far."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    number: int


@dataclass
class Stub:
    """A running server: its address, and what it was asked."""

    port: int
    asked: list[Asked] = field(default_factory=list)
    together: int = 0
    most_together: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve(reply: Reply) -> Iterator[Stub]:
    """Run a server on a free port while the block runs."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"{}")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _answer(self, body: bytes) -> None:
            with lock:
                asked = Asked(self.path, json.loads(body), dict(self.headers), len(stub.asked))
                stub.asked.append(asked)
                stub.together += 1
                stub.most_together = max(stub.most_together, stub.together)
            try:
                answer = reply(asked)
                time.sleep(answer.hang)
            finally:
                with lock:
                    stub.together -= 1
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass  # clients hang up on purpose

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = Stub(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()


def chat(content: str, **usage: int) -> Answer:
    """An answer of an OpenAI-compatible endpoint."""
    value = {"choices": [{"message": {"role": "assistant", "content": content}}], "usage": usage}
    return Answer(body=json.dumps(value).encode())


def asked_for(asked: Asked) -> str:
    """The text of the last turn of a chat."""
    return str(asked.body["messages"][-1]["content"])


def path_of(asked: Asked) -> str:
    return urlsplit(asked.path).path
