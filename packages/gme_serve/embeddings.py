"""The routes that embed: ``/v1/embeddings``, ``/v1/embeddings/upload`` and ``/v1/models``, as OpenAI's clients expect.

Knows bodies and answers; the work is the service's.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Form
from starlette.responses import JSONResponse

from gme_serve.batcher import Vectors
from gme_serve.bodies import EmbeddingsBody, UploadBody
from gme_serve.errors import ApiError
from gme_serve.prepare import Part
from gme_serve.service import Embedded, Service

_Format = Literal["float", "base64"]


def router(service: Service) -> APIRouter:
    """The routes of `service`."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        model = {"id": service.name, "object": "model", "created": 0, "owned_by": "gme", "dimension": service.dimension}
        return {"object": "list", "data": [model]}

    @routes.post("/embeddings")
    async def embeddings(body: EmbeddingsBody) -> JSONResponse:
        """Embed texts and pictures."""
        _check_model(body.model, service)
        _check_dimensions(body.dimensions, service)
        parts = [Part(item.text, item.title, item.image) for item in body.input]
        places = [f"input[{place}]" for place in range(len(parts))]
        return _answer(await service.embed(parts, body.instruction, places), service.name, body.encoding_format)

    @routes.post("/embeddings/upload")
    async def upload(body: Annotated[UploadBody, Form()]) -> JSONResponse:
        """Embed one uploaded picture, with or without a text."""
        _check_model(body.model, service)
        part = Part(body.text, None, await body.image.read())
        return _answer(await service.embed([part], body.instruction, ["image"]), service.name, "float")

    return routes


def _check_model(model: str | None, service: Service) -> None:
    if model is not None and model != service.name:
        message = f"The model {model!a} is not served here. Use '{service.name}', or leave `model` out."
        raise ApiError(404, message, code="model_not_found", param="model")


def _check_dimensions(dimensions: int | None, service: Service) -> None:
    """A shorter vector is meaningful only if training made its first numbers so; none of the models did."""
    if dimensions is not None and dimensions != service.dimension:
        message = (
            f"{dimensions} dimensions: '{service.name}' was not trained for shortened embeddings, its vectors have "
            f"{service.dimension}. Leave `dimensions` out."
        )
        raise ApiError(400, message, code="dimensions_not_supported", param="dimensions")


def _answer(embedded: Embedded, model: str, encoding: _Format) -> JSONResponse:
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(_encoded(embedded.vectors, encoding))
    ]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return JSONResponse({"object": "list", "data": data, "model": model, "usage": usage})


def _encoded(vectors: Vectors, encoding: _Format) -> list[Any]:
    if encoding == "float":
        floats: list[Any] = vectors.tolist()
        return floats
    return [base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode() for vector in vectors]
