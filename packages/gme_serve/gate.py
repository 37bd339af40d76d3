"""Who may come in, and with how much: the API key and the size of a body, both before anything is read or kept.

ASGI middleware. Knows headers and bytes; not what a request asks for.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gme_serve.errors import ApiError

OPEN_PATHS = frozenset({"/", "/healthz"})
"""Need no key: the empty page, which asks for it, and the probe of whoever restarts the server."""


class KeyRequired:
    """Lets in whoever sends ``Authorization: Bearer KEY``; the comparison takes the same time for every wrong key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._fits(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "Missing or wrong API key. Send it as the header Authorization: Bearer KEY.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response()(scope, receive, send)

    def _fits(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode("latin-1"), self._key)


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
