"""Routes that admit a request, then read, bound and parse its body beside the event loop.

FastAPI would parse a body on the event loop, which then answers no other request. Knows HTTP; not the fields of bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gme_serve.admission import Ticket
from gme_serve.config import RequestLimits
from gme_serve.errors import JSON_HINT, ApiError
from gme_serve.forms import parse_form
from gme_serve.gate import client_of
from gme_serve.json_body import is_json, parse_body
from gme_serve.memory import HeapTrimmer
from gme_serve.service import Service

_MAX_INLINE_BYTES = 4096
"""Bodies up to this size are parsed on the event loop, which takes less time than the switch to a thread."""
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def bounded_route(service: Service) -> type[APIRoute]:
    """Make the class of a service's routes, which call an endpoint with a body as ``endpoint(request, body)``."""

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            # A route without a body has nothing to bound.
            if self.body_field is None:
                return super().get_route_handler()
            return _make_handler(service, self.endpoint, self.body_field.field_info)

    return BoundedRoute


def ticket_of(request: Request) -> Ticket:
    """Return the ticket of a request whose route has a body."""
    ticket: Ticket = request.state.ticket
    return ticket


def _make_handler(service: Service, endpoint: Callable[..., Any], field: FieldInfo) -> Handler:
    """Make the handler that admits a request, parses its body as `field` says, and calls `endpoint` with both."""
    kind = field.annotation
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise TypeError(f"{endpoint.__name__}: a body must be one model, found {kind}")
    parse = _parse_form if isinstance(field, params.Form) else _parse_json

    trimmer = HeapTrimmer()

    async def answer(request: Request) -> Response:
        async with service.admission.admit(client_of(request.scope)) as ticket:
            request.state.ticket = ticket
            try:
                # A list, from which the bytes are popped: they are freed once they are parsed, though the request goes
                # on, and bodies with pictures are large.
                raw = [await _read(request, service, ticket)]
                async with _ended_by_disconnect(request, ticket):
                    content_type = request.headers.get("content-type", "")
                    if len(raw[0]) <= _MAX_INLINE_BYTES:
                        body = parse(raw.pop(), content_type, kind, service.limits)
                    else:
                        body = await service.in_thread(ticket, parse, raw.pop(), content_type, kind, service.limits)
                    response: Response = await endpoint(request, body)
                    return response
            finally:
                trimmer.after(ticket.body_bytes)

    return answer


async def _read(request: Request, service: Service, ticket: Ticket) -> bytes:
    chunks: list[bytes] = []
    try:
        async for chunk in request.stream():
            service.admission.count_bytes(ticket, len(chunk))
            chunks.append(chunk)
    except ClientDisconnect:
        raise _gone() from None
    ticket.read = True
    return b"".join(chunks)


@asynccontextmanager
async def _ended_by_disconnect(request: Request, ticket: Ticket) -> AsyncIterator[None]:
    """End the request if its client disconnects, so that nothing is computed in vain."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        ticket.end(_gone())

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def _gone() -> ApiError:
    return ApiError(499, "The client hung up.", code="client_gone")


def _parse_json(raw: bytes, content_type: str, kind: type[BaseModel], limits: RequestLimits) -> BaseModel:
    if not is_json(content_type):
        raise ApiError(400, f"The body is no JSON object. {JSON_HINT}", code="json_invalid")
    return parse_body(raw, kind, limits)


def _parse_form(raw: bytes, content_type: str, kind: type[BaseModel], _limits: RequestLimits) -> BaseModel:
    return parse_form(raw, content_type, kind)
