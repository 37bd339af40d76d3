"""An application on a port until it is told to stop. Knows sockets, signals and uvicorn; not what is served."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from gme_data.errors import FoundryError

if TYPE_CHECKING:
    from fastapi import FastAPI

_DRAIN_SECONDS = 30


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
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, kind)
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


def address(host: str, opened: socket.socket) -> str:
    """The URL to open, with the port that `opened` really has."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{opened.getsockname()[1]}"


def run(app: FastAPI, opened: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted is answered, for at most 30 seconds.

    Args:
        app: The application.
        opened: From `bind`.
        announce: Called once requests are answered and signals are heeded.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    # uvicorn stops in order, then raises the signal again for whoever handled it before.
    with suppress(KeyboardInterrupt):
        _Announced(config, announce).run(sockets=[opened])


class _Announced(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()
