"""The ASGI application: routes of a service and, if there is one, of a corpus. Knows paths; computes nothing."""

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
from gme_serve.metrics import CountRequests
from gme_serve.service import Service


def create_app(
    service: Service, corpus: LiveCorpus | None = None, keys: Sequence[str] = (), hosts: Sequence[Host] = ()
) -> FastAPI:
    """Create the application.

    Args:
        service: The served model; it is started and stopped with the application.
        corpus: Corpus that the page searches; without one the routes of the search answer 404.
        keys: API keys, one of which clients must send; without keys every client is admitted.
        hosts: Host names of the server besides the address of a request; see `gate.HostsAllowed`.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        watching = asyncio.create_task(corpus.watch(service)) if corpus else None
        yield
        if watching:
            watching.cancel()
        await service.stop()

    # The interactive documentation would load scripts from another site; the schema itself is served.
    app = FastAPI(title="GME Foundry", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    errors.install(app)
    app.include_router(embeddings.router(service))
    app.include_router(searching.router(service, corpus))
    _add_state(app, service, corpus, key_required=bool(keys))
    # The middleware that is added last comes first: all requests are counted, then host, key and size are checked.
    app.add_middleware(BodyLimit, limit=service.limits.max_body_bytes)
    if keys:
        app.add_middleware(KeyRequired, keys=keys)
    app.add_middleware(HostsAllowed, hosts=hosts)
    app.add_middleware(CountRequests, metrics=service.metrics)
    return app


def _add_state(app: FastAPI, service: Service, corpus: LiveCorpus | None, *, key_required: bool) -> None:
    html, headers = page.read()

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return Response(html, headers=headers, media_type="text/html")

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the model answers, and what the page needs to know before it has the key."""
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
