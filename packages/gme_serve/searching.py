"""The routes of the search page: ``/v1/search`` and the thumbnails of hits. Knows bodies and answers."""

from __future__ import annotations

import logging
from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gme_data.errors import FoundryError
from gme_serve.bodies import SearchBody
from gme_serve.corpus import SearchCorpus
from gme_serve.errors import ApiError
from gme_serve.fair import FairThreads
from gme_serve.gate import client_of
from gme_serve.items import RequestItem
from gme_serve.live import LiveCorpus
from gme_serve.routes import bounded_route, ticket_of
from gme_serve.service import Service

_log = logging.getLogger(__name__)
_DEFAULT_HITS = 24


def router(service: Service, corpus: LiveCorpus | None) -> APIRouter:
    """Make the routes of the search; without a corpus they answer 404 and say how to make one."""
    routes = APIRouter(prefix="/v1", route_class=bounded_route(service))
    # One thread, since the corpus's Parquet readers and their cache are not thread-safe.
    thread = FairThreads(1, "corpus")

    @routes.post("/search")
    async def search(request: Request, body: SearchBody) -> Response:
        """Return the nearest items of the corpus."""
        ticket = ticket_of(request)
        # The version is fixed here: a new one may be served before the hits of this request are read.
        version = _current(corpus)
        k = _number_of_hits(body.k, service.limits.max_hits)
        # An empty box beside a picture is no text: the picture alone is the query.
        query = RequestItem((body.text or "").strip() or None, None, body.image)
        embedded = await service.embed(ticket, [query], body.instruction, ["query"])
        try:
            hits = await thread.run(ticket.client, version.search, embedded.vectors, k)
        except FoundryError as error:  # a file of the corpus was damaged or replaced while it was served
            _log.error("%s", error)
            message = "The corpus can't be read any more. The server's log has the details."
            raise ApiError(503, message, code="corpus_not_readable") from error
        data = []
        for rank, hit in enumerate(hits, start=1):
            # A row belongs to one version: the index in the address keeps caches from showing another one's picture.
            address = f"/v1/items/{hit.row}/image?index={version.index}" if hit.image else None
            data.append({"rank": rank, **asdict(hit), "image": address})
        return JSONResponse({"object": "list", "index": version.index, "data": data})

    @routes.get("/items/{row}/image")
    async def image(request: Request, row: int, index: str | None = None) -> Response:
        """Return a thumbnail of an item's picture; `index` is that of the search that named the row."""
        version = _current(corpus)
        if index not in (None, version.index):
            message = "The corpus was updated since it was searched. Search again."
            raise ApiError(410, message, code="corpus_updated", param="index")
        try:
            async with service.admission.admit(client_of(request.scope)) as ticket:
                picture = await thread.run(ticket.client, version.thumbnail, row)
        except FoundryError as error:
            message = f"The picture of row {row} is missing or damaged."
            raise ApiError(404, message, code="image_not_readable") from error
        if picture is None:
            raise ApiError(404, f"Row {row} has no picture.", code="not_found")
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(picture, headers=headers, media_type="image/png")

    return routes


def _current(corpus: LiveCorpus | None) -> SearchCorpus:
    if corpus is None:
        message = "No corpus is served. Make vectors with `gme embed`, start with `gme serve --corpus FOLDER`."
        raise ApiError(404, message, code="no_corpus")
    return corpus.current


def _number_of_hits(k: int | None, most: int) -> int:
    if k is None:
        return min(_DEFAULT_HITS, most)
    if k > most:
        message = f"k: {k} hits; this server gives at most {most}."
        raise ApiError(400, message, code="too_many_hits", param="k")
    return k
