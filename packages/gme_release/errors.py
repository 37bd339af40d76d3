"""The error of the tracker, and errors as one line of text. Imports no MLflow, which takes seconds."""

from __future__ import annotations

from gme_data.errors import FoundryError
from gme_data.redact import redact

_MAX_LENGTH = 400


class TrackerError(FoundryError):
    """The tracker could not be reached, read or written; the work itself does not depend on it."""


def one_line(error: Exception) -> str:
    """Returns the first line of an error's message without credentials, or else the name of its class."""
    first_line = " ".join(str(error).strip().partition("\n")[0].split())
    return redact(first_line)[:_MAX_LENGTH] or type(error).__name__
