"""The routes of the search page: ``/v1/search`` and the thumbnails of what it finds. Knows bodies and answers."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gme_data.errors import FoundryError
from gme_serve.bodies import SearchBody
from gme_serve.corpus import Corpus, Hit
from gme_serve.errors import ApiError
from gme_serve.fair import FairThreads
from gme_serve.gate import client_of
from gme_serve.live import LiveCorpus
from gme_serve.prepare import Part
from gme_serve.routes import bounded_route, ticket_of
from gme_serve.service import Service

_log = logging.getLogger(__name__)
_HITS = 24


def router(service: Service, corpus: LiveCorpus | None) -> APIRouter:
    """The routes; without a corpus they answer 404 and say how to make one."""
    routes = APIRouter(prefix="/v1", route_class=bounded_route(service))
    # One thread: parquet readers and their caches are not for several.
    thread = FairThreads(1, "corpus")

    @routes.post("/search")
    async def search(request: Request, body: SearchBody) -> Response:
        """The nearest items of the corpus, all of the version that is served when the request comes."""
        ticket = ticket_of(request)
        opened = _current(corpus)
        k = _hits(body.k, service.limits.max_hits)
        # An empty box beside a picture is no text: the picture alone is the query.
        part = Part((body.text or "").strip() or None, None, body.image)
        embedded = await service.embed(ticket, [part], body.instruction, ["query"])
        try:
            found = await thread.run(ticket.client, opened.search, embedded.vectors, k)
        except FoundryError as error:  # a file was damaged or replaced while it was served
            _log.error("%s", error)
            message = "The corpus can't be read any more. The server's log has the details."
            raise ApiError(503, message, code="corpus_not_readable") from error
        data = [_as_dict(rank, hit, opened.index) for rank, hit in enumerate(found, start=1)]
        return JSONResponse({"object": "list", "index": opened.index, "data": data})

    @routes.get("/items/{row}/image")
    async def image(request: Request, row: int, index: str | None = None) -> Response:
        """A small version of an item's picture; `index` is that of the search that named the row."""
        opened = _current(corpus)
        if index not in (None, opened.index):
            message = "The corpus was updated since it was searched. Search again."
            raise ApiError(410, message, code="corpus_updated", param="index")
        try:
            async with service.admission.admit(client_of(request.scope)) as ticket:
                picture = await thread.run(ticket.client, opened.thumbnail, row)
        except FoundryError as error:
            message = f"The picture of row {row} is missing or damaged."
            raise ApiError(404, message, code="image_not_readable") from error
        if picture is None:
            raise ApiError(404, f"Row {row} has no picture.", code="not_found")
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(picture, headers=headers, media_type="image/png")

    return routes


def _current(corpus: LiveCorpus | None) -> Corpus:
    if corpus is None:
        message = "No corpus is served. Make vectors with `gme embed`, start with `gme serve --corpus FOLDER`."
        raise ApiError(404, message, code="no_corpus")
    return corpus.current


def _hits(k: int | None, most: int) -> int:
    if k is None:
        return min(_HITS, most)
    if k > most:
        message = f"k: {k} hits; this server gives at most {most}."
        raise ApiError(400, message, code="too_many_hits", param="k")
    return k


def _as_dict(rank: int, hit: Hit, index: str) -> dict[str, Any]:
    # A row is that of one version: the next one has another item there, which no cache may take for this.
    return {"rank": rank, **asdict(hit), "image": f"/v1/items/{hit.row}/image?index={index}" if hit.image else None}
