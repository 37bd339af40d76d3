"""What the tests of the server share: pictures, and servers in a process or a thread of their own."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image, ImageDraw

from gme_embedder.processing.prepare import Preparer
from gme_serve.server import address, bind

KEY = "a-key-for-tests"
TEXTS = ["Santiago is the capital of Chile.", "Lima", "A river of 1,204 km", '<b>bold</b> & "quoted" <img src=x>']


def png(number: int, width: int = 80, height: int = 60) -> bytes:
    """A picture of its own for each number."""
    colour = np.random.default_rng(number).integers(0, 256, (2, 3)).tolist()
    picture = Image.new("RGB", (width, height), tuple(colour[0]))
    ImageDraw.Draw(picture).ellipse((10, 10, 50, 50), fill=tuple(colour[1]))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@dataclass
class ConstantEncoder:
    """One and the same vector for every item, behind the real preparer: for what is about bodies, not about vectors.

    Attributes:
        preparer: Of a real model.
        calls: The texts of each call.
        go: Calls wait for it.
    """

    preparer: Preparer
    dimension: int = 8
    calls: list[list[str | None]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go.set()

    def encode(self, items, instruction, *, batch_tokens):  # as `Embedder.encode`
        self.calls.append([item.get("text") for item in items])
        assert self.go.wait(60)
        return np.full((len(items), self.dimension), self.dimension**-0.5, np.float32)


@dataclass
class Server:
    """A running `gme serve`; `ready_line` and `url` wait until it is up."""

    process: subprocess.Popen[str]
    log: Path

    @cached_property
    def ready_line(self) -> str:
        """Its line, or with --json its object."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        while line.startswith("{") and not line.endswith("}\n"):
            line += self.process.stdout.readline()
        assert line, self.log.read_text()
        return line

    @property
    def url(self) -> str:
        address = re.search(r"http://[\d.:]+", self.ready_line)
        assert address, self.ready_line
        return address[0]


def client_of(url: str, key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


@contextmanager
def in_thread(app: FastAPI) -> Iterator[str]:
    """The address of an application served by this process: one more server, without its seconds of imports."""
    opened = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([opened],))
    thread.start()
    try:
        yield address("127.0.0.1", opened)
    finally:
        server.should_exit = True
        thread.join(60)


def start(folder: Path, name: str, *arguments: str, key: str | None = None) -> Server:
    log = folder / f"{name}.log"
    environment = {name: value for name, value in os.environ.items() if name != "GME_API_KEY"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "gme_cli.main", "serve", "--model", "./model", "--port", "0", *arguments],
            cwd=folder,
            env={**environment, **({"GME_API_KEY": key} if key else {})},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    return Server(process, log)


def until(true: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def error_of(answer: httpx.Response) -> dict[str, str]:
    """The error of an answer; it must have OpenAI's shape."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]
