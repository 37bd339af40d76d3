"""What a server accepts and how it batches. Knows numbers only; where it listens and what it serves is `server`'s."""

from __future__ import annotations

from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.images import MAX_PIXELS
from gme_data.settings import Frozen

MAX_MEMBERS = 2**16
"""Members of any list in a body. Counted before a member is looked at, so that millions of them cost nothing."""


class Limits(Frozen):
    """What a request may ask for. Beyond it: 400, a body too large 413, too much at once 429."""

    max_items: int = Field(default=2048, ge=1, le=MAX_MEMBERS)
    """Items in one request."""
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Bytes of one request body."""
    max_pixels: int = Field(default=16 * 2**20, ge=1, le=MAX_PIXELS)
    """Pixels of one picture, width times height."""
    max_request_pixels: int = Field(default=128 * 2**20, ge=1)
    """Pixels of all pictures of one request."""
    max_characters: int = Field(default=100_000, ge=1)
    """Characters of one text, title or instruction."""
    max_request_tokens: int = Field(default=2**19, ge=1)
    """Tokens of one request: of each item its text, its picture and the prompt with the instruction."""
    max_waiting_tokens: int = Field(default=2**20, ge=1)
    """Tokens that may wait for the model. A request that finds nothing waiting is always taken."""
    max_waiting: int = Field(default=64, ge=1)
    """Requests accepted and not answered yet."""
    max_hits: int = Field(default=100, ge=1)
    """Hits of one search."""


class Batching(Frozen):
    """How requests are computed together."""

    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens computed at once; more need more memory."""
    wait_ms: float = Field(default=3.0, ge=0, le=1000)
    """How long an idle model waits for company of a first request, in milliseconds."""


def checked_key(key: str | None) -> str | None:
    """The API key as it will come in a header; None means that none is asked for.

    Raises:
        FoundryError: The key is empty or can't stand in a header. The message does not hold it.
    """
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise FoundryError(
            "GME_API_KEY is empty or holds characters that can't stand in a header.",
            hint="Use printable ASCII without spaces, or unset GME_API_KEY to serve without a key.",
        )
    return key
