"""A hub of datasets on this machine: as much of the real one's API as its client asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest

COMMIT = "d56462d0e63a25450459c4f213e49ffdb866f7f9"


class Hub(BaseHTTPRequestHandler):
    """Serves the repositories ``root/owner/name`` at one commit.

    Attributes:
        root: Where they are.
        asked: Method, path and the range asked for, of every request.
        cut: Bytes of a file's body after which the hub goes down; None never.
        extra: Paths that it lists besides, as no honest hub would.
    """

    root: Path
    asked: list[tuple[str, str, str]]
    cut: int | None = None
    extra: tuple[str, ...] = ()

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append((self.command, path, self.headers.get("Range") or ""))
        if type(self).cut == 0:
            self.send_error(503)
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"] and len(parts) >= 4 and (self.root / parts[2] / parts[3]).is_dir():
            self._describe(self.root / parts[2] / parts[3], "/".join(parts[2:4]), parts[4:], body=body)
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            file = self.root / parts[1] / parts[2] / "/".join(parts[5:])
            if parts[4] == COMMIT and file.is_file():
                self._send_file(file.read_bytes(), body=body)
            else:
                self.send_error(404)
        else:
            self.send_error(404)

    def _describe(self, folder: Path, name: str, rest: list[str], *, body: bool) -> None:
        files = sorted(one for one in folder.rglob("*") if one.is_file())
        if rest[:1] == ["tree"] and rest[1:2] == [COMMIT]:
            listed = [
                {
                    "type": "file",
                    "path": one.relative_to(folder).as_posix(),
                    "size": one.stat().st_size,
                    "oid": "0",
                    "lfs": {"oid": _sha256(one.read_bytes()), "size": one.stat().st_size, "pointerSize": 1},
                }
                for one in files
            ]
            listed += [{"type": "file", "path": path, "size": 1, "oid": "0"} for path in self.extra]
            self._send(json.dumps(listed).encode(), body=body)
        else:
            siblings = [{"rfilename": one.relative_to(folder).as_posix()} for one in files]
            self._send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), body=body)

    def _send_file(self, data: bytes, *, body: bool) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{_sha256(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            most = type(self).cut
            self.wfile.write(data[start:] if most is None else data[start : start + most])
            if most is not None:
                type(self).cut = 0
                self.close_connection = True

    def _send(self, data: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def serve_hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """The hub, asked by every client of this process while the context is open."""
    served = type("ServedHub", (Hub,), {"root": root, "asked": [], "cut": None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    # Ends within two hundredths of a second, and not within half of one, when it is told to.
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", endpoint, raising=False)
    try:
        yield served
    finally:
        server.shutdown()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
