"""Who may come in, and with how much: hosts, origins, API keys and the size of a body, all before anything is kept.

ASGI middleware. Knows headers and bytes; not what a request asks for.
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
"""Need no key: the empty page, which asks for it, and the probe of whoever restarts the server."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}
_KEY_NUMBER = "gme_serve.key"


class Host(NamedTuple):
    """A name or address, in lower case and without brackets; of a port None means any, as the place decides."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, written: str) -> Host:
        """``name``, ``name:port``, ``[::1]:port``.

        Raises:
            ValueError: It is something else.
        """
        split = urlsplit(f"//{written}")
        if not split.hostname or split.netloc != written or "@" in written or " " in written:
            raise ValueError(written)
        return cls(split.hostname, split.port)


def parse_hosts(written: Iterable[str]) -> tuple[Host, ...]:
    """The further hosts that a server is told it is known by.

    Raises:
        FoundryError: One is no host.
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
    """Answers only to its own names, and only to its own pages.

    A page of another site that a browser shows may not use the server: neither by its address, which the ``Origin`` and
    ``Sec-Fetch-Site`` of its requests tell, nor by a name of its own that it lets point here, which ``Host`` tells.

    Args:
        app: What is let in to.
        hosts: Names besides the address that a request came in by, and those of loopback if it came in by that.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[Host]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        error = self._refused(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (error.response() if error else self._app)(scope, receive, send)

    def _refused(self, scope: Scope, headers: Headers) -> ApiError | None:
        written = headers.get("host", "")
        try:
            host = Host.parse(written)
        except ValueError:
            return ApiError(400, "The header Host is missing or no host.", code="bad_host")
        local = Host(*(scope.get("server") or ("", None)))
        if not self._is_ours(host, _PORTS.get(scope["scheme"]), local):
            message = (
                f"This server does not serve the host {written[:256]!a}. Start it with --allowed-host if it should."
            )
            return ApiError(403, message, code="host_not_allowed")
        if not self._from_ours(headers, host, scope["scheme"]):
            message = "Pages of other sites may not use this server."
            return ApiError(403, message, code="origin_not_allowed")
        return None

    def _is_ours(self, host: Host, default_port: int | None, local: Host) -> bool:
        if any(host.name == ours.name and ours.port in (None, host.port) for ours in self._hosts):
            return True
        names = _LOOPBACK if is_loopback(local.name) else {local.name}
        return host.name in names and (host.port or default_port) == local.port

    def _from_ours(self, headers: Headers, host: Host, scheme: str) -> bool:
        """Whether no page sent it, or one of ours, or a link led here."""
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
    """Whether an address is of this machine alone; a name is not."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class KeyRequired:
    """Lets in whoever sends ``Authorization: Bearer KEY``; the comparison takes the same time for every wrong key."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app, self._keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
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
        """Which key was sent. All are compared, whichever fits."""
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        sent = key.strip().encode("latin-1")
        fits = [hmac.compare_digest(sent, ours) for ours in self._keys]
        return fits.index(True) if scheme.lower() == "bearer" and any(fits) else None


def client_of(scope: Scope) -> str:
    """Whose request it is: that of a key at an address, or of an address where no key is asked for."""
    address = scope["client"][0] if scope.get("client") else ""
    return f"{scope.get(_KEY_NUMBER)}@{address}"


class BodyLimit:
    """Refuses bodies of more than `limit` bytes: at once if they say so, else at the byte where they pass it."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
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
            if read > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, counting, send)

    def _too_large(self) -> ApiError:
        message = f"The body is larger than {self._limit} bytes. Send fewer items or smaller pictures."
        return ApiError(413, message, code="body_too_large")
