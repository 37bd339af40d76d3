"""An application on a port until it is told to stop. Knows sockets, signals and uvicorn; not what is served."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from gme_data.errors import FoundryError
from gme_serve.gate import is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gme_serve.live import LiveCorpus
    from gme_serve.service import Service

_ENOUGH = 0.95
"""Part of the grace after which connections are closed, answered or not."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; called before the slow work, so that a port in use is known at once.

    Args:
        host: Name or address.
        port: 0 for any free one.

    Raises:
        FoundryError: The port is taken or not allowed, or there is no such host.
    """
    if not 0 <= port < 2**16:  # the resolver would take it modulo that
        raise FoundryError(f"--port {port}: expected 0 to 65535.", hint="0 takes any free one.")
    try:
        family, kind, address = _resolve(host, port)
        # By its protocol asyncio knows TCP, and sends small packets at once: else each answer waits 40 ms for an
        # acknowledgement, since its head and its body are two packets.
        opened = socket.socket(family, kind, socket.IPPROTO_TCP)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that just closed may be used again
        opened.bind(address)
        opened.listen()
    except OSError as error:
        what = (
            f"Port {port} is taken."
            if error.errno == errno.EADDRINUSE
            else f"Can't listen on {host}, port {port}: {error}"
        )
        raise FoundryError(what, hint="Give another --port, 0 for any free one.", exit_code=1) from error
    return opened


def require_key(host: str, keys: Sequence[str]) -> None:
    """Refuse to serve other machines without a key.

    Raises:
        FoundryError: There is no key, and `host` is not of this machine alone; or there is no such host.
    """
    try:
        *_, (address, *_) = _resolve(host, 0)
    except OSError as error:
        raise FoundryError(f"Can't listen on {host}: {error}", hint="Give another --host.", exit_code=1) from error
    if not keys and not is_loopback(str(address)):
        raise FoundryError(
            f"--host {host} lets other machines in, and no API key is set: everyone who reaches this one could use it.",
            hint="Set GME_API_KEY to what clients must send, or leave --host out to serve this machine alone.",
        )


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, socket.SocketKind, tuple[Any, ...]]:
    family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, kind, address


def address(host: str, opened: socket.socket) -> str:
    """The URL to open, with the port that `opened` really has."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{opened.getsockname()[1]}"


def run(
    app: FastAPI,
    service: Service,
    opened: socket.socket,
    announce: Callable[[], None],
    corpus: LiveCorpus | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what is computed by then is answered, for at most the grace of the service.

    Args:
        app: The application.
        service: Behind it.
        opened: From `bind`.
        announce: Called once requests are answered and signals are heeded.
        corpus: What it searches.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # else whoever is on this machine says whose request it is
        ws="none",
        timeout_graceful_shutdown=math.ceil(service.limits.grace_seconds),
    )
    # uvicorn stops in order, then raises the signal again for whoever handled it before.
    with suppress(KeyboardInterrupt):
        _Drained(config, service, announce).run(sockets=[opened])
    # Python would wait for the threads, and nothing can end those but the end of the process.
    if service.computing:
        sys.stderr.write("Ended while the model computed: the grace was over.\n")
        sys.stderr.flush()
        os._exit(0)
    if corpus and corpus.loading:
        os._exit(0)


class _Drained(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._announce = service, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drain()
        # Whoever reads its answer too slowly is hung up on: uvicorn would cancel it with a traceback.
        hang_up = asyncio.get_running_loop().call_later(_ENOUGH * self._service.limits.grace_seconds, self._hang_up)
        await super().shutdown(sockets)
        hang_up.cancel()

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
