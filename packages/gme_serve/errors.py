"""Errors in the shape of OpenAI's API: ``{"error": {"message", "type", "param", "code"}}``, whatever went wrong.

Knows statuses and wording; not what the routes do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

_KNOWN = {
    404: ("not_found", "There is nothing at this address. /openapi.json lists what there is."),
    405: ("method_not_allowed", "This address takes another method. /openapi.json lists them."),
}
JSON_HINT = "Send a JSON object with the header Content-Type: application/json."
"""Hint for a body that is something else."""
_NO_OBJECT = ("model_attributes_type", "model_type", "dict_type", "missing")
"""Types of pydantic's errors for a body that is no JSON object."""


class ApiError(HTTPException):
    """An answer with an error. It is an HTTPException, since FastAPI passes only those on while it reads a body.

    Args:
        status: HTTP status.
        message: Text that says what is wrong, what was expected and what to do.
        code: Name of the error for programs, such as ``model_not_found``.
        param: The field that the error is about, such as ``input[2].image``.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code, self.param = code, param

    def response(self) -> Response:
        """Return the answer."""
        # `json.dumps` writes ASCII only: the message may repeat what a client sent, which need not be encodable.
        error = {"message": self.detail, "type": _kind(self.status_code), "param": self.param, "code": self.code}
        return Response(json.dumps({"error": error}), self.status_code, self.headers, "application/json")


def install(app: FastAPI) -> None:
    """Make `app` answer every error in this shape."""
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Exception, _on_defect)


def _on_http(_request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error.response()
    if not isinstance(error, HTTPException):
        raise error
    code, message = _KNOWN.get(error.status_code, ("bad_request", error.detail))
    return ApiError(error.status_code, message, code=code, headers=error.headers).response()


def _on_validation(_request: Request, error: Exception) -> Response:
    """Answer errors in a path or a query; bodies are validated by `routes`."""
    if not isinstance(error, RequestValidationError):
        raise error
    # The location begins with "path" or "query", which clients know nothing of.
    return invalid([{**detail, "loc": detail["loc"][1:]} for detail in error.errors()]).response()


def invalid(details: Sequence[Mapping[str, Any]]) -> ApiError:
    """Make a 400 of the `details` of pydantic's errors; it names the first three, and the field of the first."""
    location = details[0]["loc"]
    message = "; ".join(_describe(detail) for detail in details[:3])
    return ApiError(400, message, code=str(details[0]["type"]), param=field_path(location) if location else None)


def _on_defect(_request: Request, _error: Exception) -> Response:
    """Answer a defect of the server: the log has the traceback, and the client learns nothing about it."""
    return ApiError(500, "Internal error. The server's log has the details.", code="internal_error").response()


def _describe(detail: Mapping[str, Any]) -> str:
    path = field_path(detail["loc"])
    if not path:
        return f"The body is no JSON object. {JSON_HINT}" if detail["type"] in _NO_OBJECT else str(detail["msg"])
    return f"{path}: {detail['msg']}"


def field_path(location: Sequence[str | int]) -> str:
    """Write a location as a path: ``("input", 0, "image")`` -> ``input[0].image``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
