"""The routes that embed: ``/v1/embeddings``, ``/v1/embeddings/upload`` and ``/v1/models``, as OpenAI's clients expect.

Knows bodies and answers; the work is the service's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Form, Request
from numpy.typing import NDArray
from starlette.responses import Response

from gme_serve.admission import Ticket
from gme_serve.batcher import Vectors
from gme_serve.bodies import EmbeddingsBody, UploadBody
from gme_serve.errors import ApiError
from gme_serve.items import RequestItem
from gme_serve.routes import bounded_route, ticket_of
from gme_serve.service import Embedded, Service

_Format = Literal["float", "base64"]
_MAX_INLINE_VALUES = 4096
"""Up to so many values are written as JSON on the event loop, which takes less time than the switch to a thread."""
IGNORED = "X-Ignored-Fields"
"""Header that names the unknown fields of the body, percent-encoded; an answer has it only if there were any."""


def router(service: Service) -> APIRouter:
    """Make the routes that embed by `service`."""
    routes = APIRouter(prefix="/v1", route_class=bounded_route(service))
    model = {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "gme",
        "dimension": service.dimension,
    }

    @routes.get("/models/", include_in_schema=False)  # or the route below would match with an empty name
    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """List the one model that is served."""
        return {"object": "list", "data": [model]}

    @routes.get("/models/{name:path}")  # names have slashes
    async def retrieve_model(name: str) -> dict[str, Any]:
        """Describe the served model by its name."""
        _check_model(name, service)
        return model

    @routes.post("/embeddings")
    async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
        """Embed texts and pictures."""
        _check_model(body.model, service)
        _check_tokenizer(body.tokenizer, service)
        _check_dimensions(body.dimensions, service)
        items = [RequestItem(item.text, item.title, item.image, item.token_ids) for item in body.input]
        params = [f"input[{number}]" for number in range(len(items))]
        embedded = await service.embed(ticket_of(request), items, body.instruction, params)
        return await _answer(service, ticket_of(request), embedded, body.encoding_format or "float", body.ignored)

    @routes.post("/embeddings/upload")
    async def upload(request: Request, body: Annotated[UploadBody, Form()]) -> Response:
        """Embed one uploaded picture, with or without a text."""
        _check_model(body.model, service)
        item = RequestItem(body.text, None, body.image.file.read())
        embedded = await service.embed(ticket_of(request), [item], body.instruction, ["image"])
        return await _answer(service, ticket_of(request), embedded, "float", [])

    return routes


async def _answer(
    service: Service, ticket: Ticket, embedded: Embedded, encoding: _Format, ignored: Sequence[str]
) -> Response:
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    if embedded.vectors.size <= _MAX_INLINE_VALUES:
        rows = _rows(embedded.vectors, encoding)
    else:
        # Thousands of vectors are tens of megabytes of JSON: on the event loop they would delay all others for seconds.
        rows = await service.in_thread(ticket, _rows, embedded.vectors, encoding)
    end = json.dumps({"model": service.name, "usage": usage})[1:]
    # Percent-encoded, since a header holds ASCII only and a name may hold anything.
    names = {IGNORED: ", ".join(quote(name, safe="", errors="surrogatepass") for name in ignored)} if ignored else None
    return Response(f'{{"object": "list", "data": [{rows}], {end}', headers=names, media_type="application/json")


def _rows(vectors: Vectors, encoding: _Format) -> str:
    """Write the members of ``data``."""
    # Each is written by a call of its own: `json` holds the interpreter's lock for the duration of a call.
    return ", ".join(
        json.dumps({"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)})
        for index, vector in enumerate(vectors)
    )


def _encoded(vector: NDArray[np.float32], encoding: _Format) -> list[float] | str:
    if encoding == "float":
        floats: list[float] = vector.tolist()
        return floats
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def _check_model(model: str | None, service: Service) -> None:
    if model is not None and model != service.name:
        message = f"The model {model[:256]!a} is not served here. Use '{service.name}', or leave `model` out."
        raise ApiError(404, message, code="model_not_found", param="model")


def _check_tokenizer(tokenizer: str | None, service: Service) -> None:
    if tokenizer is not None and tokenizer != service.name:
        message = (
            f"Token ids of {tokenizer[:64]!a} would be other words here: this server knows the tokenizer of "
            f"'{service.name}' alone. Send texts."
        )
        raise ApiError(400, message, code="tokenizer_not_served", param="tokenizer")


def _check_dimensions(dimensions: int | None, service: Service) -> None:
    """Refuse other dimensions: a shortened vector is meaningful only if the model was trained for it."""
    if dimensions is not None and dimensions != service.dimension:
        message = (
            f"{dimensions} dimensions: '{service.name}' was not trained for shortened embeddings, its vectors have "
            f"{service.dimension}. Leave `dimensions` out."
        )
        raise ApiError(400, message, code="dimensions_not_supported", param="dimensions")
