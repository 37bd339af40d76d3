"""ASGI middleware that checks hosts, origins, API keys and the size of a body before a request takes any memory.

Knows headers and bytes; not the contents of requests.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gme_data.errors import FoundryError
from gme_serve.errors import ApiError

OPEN_PATHS = frozenset({"/", "/healthz"})
"""Paths that need no key: the page, which holds no data and asks for the key, and the health probe."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}
_KEY_NUMBER = "gme_serve.key"


class Host(NamedTuple):
    """A host name or address, in lower case and without brackets. What a missing port means is up to the caller."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, written: str) -> Host:
        """Parse ``name``, ``name:port`` or ``[::1]:port``.

        Raises:
            ValueError: The text is something else.
        """
        split = urlsplit(f"//{written}")
        if not split.hostname or split.netloc != written or "@" in written or " " in written:
            raise ValueError(written)
        return cls(split.hostname, split.port)


def parse_hosts(written: Iterable[str]) -> tuple[Host, ...]:
    """Parse the values of ``--allowed-host``.

    Raises:
        FoundryError: A value is no host.
    """
    hosts = []
    for host in written:
        try:
            hosts.append(Host.parse(host))
        except ValueError as error:
            raise FoundryError(
                f"--allowed-host {host}: expected a name or an address, with or without a port.",
                hint="For example --allowed-host search.example.org",
            ) from error
    return tuple(hosts)


class HostsAllowed:
    """Answers only requests to the server's own names, and from its own pages.

    A page of another site in a browser may not use the server. If it sends requests to the server's address, their
    ``Origin`` and ``Sec-Fetch-Site`` tell it; if it makes a name of its own resolve to that address (DNS rebinding),
    ``Host`` tells it.

    Args:
        app: The application behind the middleware.
        hosts: Names of the server. The address that a request came in by needs none, nor do the names of loopback if
            the request came in by that.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[Host]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        error = self._check(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (error.response() if error else self._app)(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> ApiError | None:
        text = headers.get("host", "")
        try:
            host = Host.parse(text)
        except ValueError:
            return ApiError(400, "The header Host is missing or no host.", code="bad_host")
        local = Host(*(scope.get("server") or ("", None)))
        if not self._is_own_host(host, _PORTS.get(scope["scheme"]), local):
            message = f"This server does not serve the host {text[:256]!a}. Start it with --allowed-host if it should."
            return ApiError(403, message, code="host_not_allowed")
        if not self._is_same_origin(headers, host, scope["scheme"]):
            message = "Pages of other sites may not use this server."
            return ApiError(403, message, code="origin_not_allowed")
        return None

    def _is_own_host(self, host: Host, default_port: int | None, local: Host) -> bool:
        if any(host.name == own.name and own.port in (None, host.port) for own in self._hosts):
            return True
        # A request over loopback may name this machine in any of these ways.
        names = _LOOPBACK if is_loopback(local.name) else {local.name}
        return host.name in names and (host.port or default_port) == local.port

    def _is_same_origin(self, headers: Headers, host: Host, scheme: str) -> bool:
        """Whether the request was sent by no page, by a page of this server, or by following a link."""
        origin = headers.get("origin")
        if origin is None:
            navigates = headers.get("sec-fetch-mode") == "navigate"
            return navigates or headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        split = urlsplit(origin)
        try:
            page = Host.parse(split.netloc)
        except ValueError:
            return False
        if split.scheme not in _PORTS:
            return False
        # Behind a proxy that encrypts, the page's scheme is not that of the request, and Host may be the proxy's.
        ports = (host.port or _PORTS[split.scheme], host.port or _PORTS.get(scheme))
        same = page.name == host.name and (page.port or _PORTS[split.scheme]) in ports
        return same or page in self._hosts


def is_loopback(address: str) -> bool:
    """Whether an address can be reached from this machine alone; False for a name."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class KeyRequired:
    """Admits requests with ``Authorization: Bearer KEY`` and one of the keys."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app, self._keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        number = self._number(scope) if scope["type"] == "http" else None
        if scope["type"] != "http" or number is not None or scope["path"] in OPEN_PATHS:
            scope[_KEY_NUMBER] = number
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "Missing or wrong API key. Send it as the header Authorization: Bearer KEY.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response()(scope, receive, send)

    def _number(self, scope: Scope) -> int | None:
        """Number of the key that was sent; None for a wrong one or none."""
        # All keys are compared, in constant time each, so that the time of an answer says nothing of the keys.
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        sent = key.strip().encode("latin-1")
        matches = [hmac.compare_digest(sent, valid) for valid in self._keys]
        return matches.index(True) if scheme.lower() == "bearer" and any(matches) else None


def client_of(scope: Scope) -> str:
    """Name the client of a request: its key and address, or its address alone where no key is required."""
    address = scope["client"][0] if scope.get("client") else ""
    return f"{scope.get(_KEY_NUMBER)}@{address}"


class BodyLimit:
    """Refuses bodies of more than `limit` bytes: at once if the header says so, else as soon as the limit is passed."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limit:
            await self._too_large().response()(scope, receive, send)
            return
        read = 0

        async def counting() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            # The length in the header may be absent, or wrong.
            if read > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, counting, send)

    def _too_large(self) -> ApiError:
        message = f"The body is larger than {self._limit} bytes. Send fewer items or smaller pictures."
        return ApiError(413, message, code="body_too_large")
