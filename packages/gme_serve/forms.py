"""Forms whose texts come as the bytes that were sent, so that what is not UTF-8 can be refused.

The framework would read such a text as Latin-1 without a word. Knows headers only; fields are `bodies`'.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

_CHARSET = b"; charset=latin-1"
"""One character for each byte: nothing is lost. Of two charsets the last counts."""


class BytewiseForm(APIRoute):
    """A route that reads the texts of its form byte for byte, whatever charset the form claims."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the framework behind a changed Content-Type."""
        handle = super().get_route_handler()

        async def bytewise(request: Request) -> Response:
            headers = [
                (name, value + _CHARSET if name == b"content-type" else value)
                for name, value in request.scope["headers"]
            ]
            return await handle(Request({**request.scope, "headers": headers}, request.receive))

        return bytewise
