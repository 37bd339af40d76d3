"""What a web page, another user or a rebound name can send to a server on loopback."""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

EVIL = "https://evil.example"
REBOUND = "rebind.evil.example"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def lets_pages_read(self) -> bool:
        return "access-control-allow-origin" in self.headers

    def json(self) -> Any:
        return json.loads(self.body)


def send(url: str, method: str, path: str, body: Any = None, *, secret: str | None = None, **headers: str) -> Reply:
    """One request; `headers` may hold Host and Origin, and say what a browser would not let a page say."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if secret is not None:
        sent["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def listening() -> set[tuple[str, int]]:
    """Addresses at which what this process started listens."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            for connection in child.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
        except psutil.Error:
            continue
    return found
