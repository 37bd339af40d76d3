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
_JSON_HINT = "Send a JSON object with the header Content-Type: application/json."
_NO_OBJECT = ("model_attributes_type", "model_type", "dict_type", "missing")
"""pydantic's types of error for a body that is no JSON object at all."""


class ApiError(HTTPException):
    """An answer that is no success. An HTTPException, since FastAPI lets only those pass while it reads a body.

    Args:
        status: HTTP status.
        message: What is wrong, what was expected, what to do.
        code: For programs, such as ``model_not_found``.
        param: The field it is about, such as ``input[2].image``.
        headers: Of the answer.
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
        """The answer. ASCII only: what a client sent may come back in it, and need not be encodable."""
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
    code, message = _KNOWN.get(error.status_code, ("bad_request", _unread(error)))
    return ApiError(error.status_code, message, code=code, headers=error.headers).response()


def _unread(error: HTTPException) -> str:
    """What keeps a body from being read; the framework says only that something did."""
    cause = error.__cause__
    if isinstance(cause, RecursionError):
        return "The body is nested too deeply."
    if isinstance(cause, UnicodeDecodeError):
        return f"The body is not valid {cause.encoding}: {cause.reason} at byte {cause.start}."
    if isinstance(cause, ValueError):  # of the parser, such as an integer of too many digits
        return f"The body can't be read: {cause}"
    return error.detail


def _on_validation(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    details = error.errors()
    message = "; ".join(_describe(detail) for detail in details[:3])
    code, location = str(details[0]["type"]), details[0]["loc"][1:]
    param = field_path(location) if location and code != "json_invalid" else None
    return ApiError(400, message, code=code, param=param).response()


def _on_defect(_request: Request, _error: Exception) -> Response:
    """A defect of ours: the log has the traceback, the client learns nothing about the inside."""
    return ApiError(500, "Internal error. The server's log has the details.", code="internal_error").response()


def _describe(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "json_invalid":
        return f"The body is no valid JSON: {detail['ctx']['error']} at character {detail['loc'][-1]}. {_JSON_HINT}"
    path = field_path(detail["loc"][1:])
    if not path:
        return f"The body is no JSON object. {_JSON_HINT}" if detail["type"] in _NO_OBJECT else str(detail["msg"])
    return f"{path}: {detail['msg']}"


def field_path(location: Sequence[str | int]) -> str:
    """``input[0].image`` for ``("input", 0, "image")``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
