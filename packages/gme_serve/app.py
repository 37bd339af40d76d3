"""The application: routes around a service and, if there is one, a corpus. Knows paths; computes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from gme_serve import embeddings, errors, page, searching
from gme_serve.gate import BodyLimit, Host, HostsAllowed, KeyRequired
from gme_serve.live import LiveCorpus
from gme_serve.metrics import Counted
from gme_serve.service import Service


def create_app(
    service: Service, corpus: LiveCorpus | None = None, keys: Sequence[str] = (), hosts: Sequence[Host] = ()
) -> FastAPI:
    """The ASGI application.

    Args:
        service: Started and stopped with the application.
        corpus: What the page searches; None leaves the rest as it is.
        keys: Of which clients must send one; none lets everyone in.
        hosts: Names it is known by, besides the address that a request came in by; see `gate.HostsAllowed`.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        watching = asyncio.create_task(corpus.watch(service)) if corpus else None
        yield
        if watching:
            watching.cancel()
        await service.stop()

    # The interactive documentation would be fetched from elsewhere; the schema itself stays.
    app = FastAPI(title="GME Foundry", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    errors.install(app)
    app.include_router(embeddings.router(service))
    app.include_router(searching.router(service, corpus))
    _add_state(app, service, corpus, key_required=bool(keys))
    # The last one added is the first one met.
    app.add_middleware(BodyLimit, limit=service.limits.max_body_bytes)
    if keys:
        app.add_middleware(KeyRequired, keys=keys)
    app.add_middleware(HostsAllowed, hosts=hosts)
    app.add_middleware(Counted, metrics=service.metrics)
    return app


def _add_state(app: FastAPI, service: Service, corpus: LiveCorpus | None, *, key_required: bool) -> None:
    html, headers = page.read()

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return Response(html, headers=headers, media_type="text/html")

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the model answers; also what the page needs to know before it has the key."""
        state = {
            "ready": service.ready,
            "model": service.name,
            "dimension": service.dimension,
            "corpus": len(corpus.current.ids) if corpus else None,
            "index": corpus.current.index if corpus else None,
            "key_required": key_required,
        }
        return JSONResponse(state, 200 if service.ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts and times in Prometheus' text format."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
