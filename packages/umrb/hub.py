"""What the client of the Hugging Face hub raises where a repository can't be had. Knows no repository."""

from __future__ import annotations

from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # type: ignore[attr-defined] # of its HTTP client, which is another from version to version
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

HUB_ERRORS = (HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)


def in_one_line(error: BaseException) -> str:
    """Its message without what follows the first line; its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
