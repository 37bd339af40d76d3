"""Errors that a retry may cure: those of a network. A bad input or a closed gate is not retried."""

from __future__ import annotations

import errno
from typing import Any

from gme_data.errors import FoundryError

_NETWORK = {
    getattr(errno, name)
    for name in ("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "ETIMEDOUT")
}


def is_transient(error: BaseException | None) -> bool:
    """Returns whether `error`, or an error that it was raised from, is one of the network."""
    while error is not None:
        if isinstance(error, FoundryError):
            return False
        if isinstance(error, ConnectionError | TimeoutError):
            return not isinstance(error, BrokenPipeError)
        if isinstance(error, OSError) and error.errno in _NETWORK:
            return True
        error = error.__cause__
    return False


def is_of_prefect(error: BaseException) -> bool:
    """Returns whether Prefect raised `error` because its server did not answer, or answered with an error."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    return isinstance(error, HTTPError | PrefectException)


def retry_transient(task: Any, task_run: Any, state: Any) -> bool:  # noqa: ANN401 - Prefect's signature
    """Returns whether to retry a Prefect task; for its ``retry_condition_fn``."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)
