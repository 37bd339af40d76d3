"""What the tracker's trouble is called. Light: whoever reports it need not have MLflow imported."""

from __future__ import annotations

from gme_data.errors import FoundryError
from gme_data.redact import redact

_LONGEST = 400


class TrackerError(FoundryError):
    """The tracker could not be reached, read or written; the work itself does not depend on it."""


def told(error: Exception) -> str:
    """What an error says, as one line without passwords."""
    line = " ".join(str(error).strip().partition("\n")[0].split())
    return redact(line)[:_LONGEST] or type(error).__name__
