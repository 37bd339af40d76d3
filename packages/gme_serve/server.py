"""Runs an application on a port until a signal ends it. Knows sockets, signals and uvicorn; not what is served."""

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

_HANG_UP_AFTER = 0.95
"""Part of the grace period after which connections are closed, answered or not."""


def bind(host: str, port: int) -> socket.socket:
    """Open a socket that listens. It is called before the model is loaded, so that a port in use is found at once.

    Args:
        host: Name or address.
        port: Number of the port; 0 for any free one.

    Raises:
        FoundryError: The port is taken or not allowed, or there is no such host.
    """
    # The resolver would take a larger number modulo 2**16.
    if not 0 <= port < 2**16:
        raise FoundryError(f"--port {port}: expected 0 to 65535.", hint="0 takes any free one.")
    try:
        family, kind, address = _resolve(host, port)
        # asyncio sets TCP_NODELAY only on sockets whose protocol says TCP. Without it each answer would wait 40 ms for
        # an acknowledgement, since its head and its body are two packets.
        opened = socket.socket(family, kind, socket.IPPROTO_TCP)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or a port that was just closed could not be used
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
        FoundryError: There is no key, and `host` can be reached from other machines; or there is no such host.
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
    """Return the URL to open, with the port that `opened` was given."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reachable}:{opened.getsockname()[1]}"


def run(
    app: FastAPI,
    service: Service,
    opened: socket.socket,
    announce: Callable[[], None],
    corpus: LiveCorpus | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then requests that the model has begun with are answered within the grace period.

    Args:
        app: The application.
        service: Service of the application.
        opened: Socket from `bind`.
        announce: Called once requests are answered and signal handlers are installed.
        corpus: Corpus of the application.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # or any program on this machine could name another client as the sender
        ws="none",
        timeout_graceful_shutdown=math.ceil(service.limits.grace_seconds),
    )
    # After an orderly stop uvicorn raises the signal again, for the handler that was installed before.
    with suppress(KeyboardInterrupt):
        _GracefulServer(config, service, announce).run(sockets=[opened])
    # At its exit Python would wait for threads that compute, and only the end of the process can end those.
    if service.computing:
        sys.stderr.write("Ended while the model computed: the grace was over.\n")
        sys.stderr.flush()
        os._exit(0)
    if corpus and corpus.loading:
        os._exit(0)


class _GracefulServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._announce = service, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drain()
        # Connections of clients that read too slowly are closed, which uvicorn would do with a traceback.
        hang_up = asyncio.get_running_loop().call_later(
            _HANG_UP_AFTER * self._service.limits.grace_seconds, self._hang_up
        )
        await super().shutdown(sockets)
        hang_up.cancel()

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
