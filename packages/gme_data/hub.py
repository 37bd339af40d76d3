"""The errors of the Hugging Face hub's client for a repository that can't be fetched. Knows no repository."""

from __future__ import annotations

from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is its HTTP client's
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

HUB_ERRORS = (HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)


def in_one_line(error: BaseException) -> str:
    """Returns the first line of an error's message; its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
