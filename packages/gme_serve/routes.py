"""Routes whose bodies are read, bounded and parsed beside the event loop, for requests that were admitted.

The framework would parse a body on the event loop, which then answers nobody. Knows HTTP; not what bodies hold.
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
from gme_serve.config import Limits
from gme_serve.errors import JSON_HINT, ApiError
from gme_serve.forms import parse_form
from gme_serve.gate import client_of
from gme_serve.json_body import is_json, parse_body
from gme_serve.memory import GivenBack
from gme_serve.service import Service

_SHORT = 4096
"""Bytes that are parsed on the event loop: sooner than a thread has its turn."""
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def bounded_route(service: Service) -> type[APIRoute]:
    """The class of routes of `service`; an endpoint with a body is called ``endpoint(request, body)``."""

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            if self.body_field is None:
                return super().get_route_handler()
            return _answering(service, self.endpoint, self.body_field.field_info)

    return BoundedRoute


def ticket_of(request: Request) -> Ticket:
    """The ticket of a request whose route has a body."""
    ticket: Ticket = request.state.ticket
    return ticket


def _answering(service: Service, endpoint: Callable[..., Any], field: FieldInfo) -> Handler:
    """What admits a request, reads and parses its body as `field` says, and hands both to `endpoint`."""
    kind = field.annotation
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise TypeError(f"{endpoint.__name__}: a body must be one model, found {kind}")
    parse = _parse_form if isinstance(field, params.Form) else _parse_json

    given_back = GivenBack()

    async def answer(request: Request) -> Response:
        async with service.admission.admit(client_of(request.scope)) as ticket:
            request.state.ticket = ticket
            try:
                raw = [await _read(request, service, ticket)]
                async with _ended_by_hanging_up(request, ticket):
                    content_type = request.headers.get("content-type", "")
                    if len(raw[0]) <= _SHORT:
                        body = parse(raw.pop(), content_type, kind, service.limits)
                    else:  # popped, so that the bytes are gone when they are parsed: pictures are long
                        body = await service.in_thread(ticket, parse, raw.pop(), content_type, kind, service.limits)
                    response: Response = await endpoint(request, body)
                    return response
            finally:
                given_back.after(ticket.body_bytes)

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
async def _ended_by_hanging_up(request: Request, ticket: Ticket) -> AsyncIterator[None]:
    """A request of a client that is gone ends: nobody waits for its answer."""

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


def _parse_json(raw: bytes, content_type: str, kind: type[BaseModel], limits: Limits) -> BaseModel:
    if not is_json(content_type):
        raise ApiError(400, f"The body is no JSON object. {JSON_HINT}", code="json_invalid")
    return parse_body(raw, kind, limits)


def _parse_form(raw: bytes, content_type: str, kind: type[BaseModel], _limits: Limits) -> BaseModel:
    return parse_form(raw, content_type, kind)
