"""Limits of requests, settings of batches, and API keys. Knows numbers and texts only."""

from __future__ import annotations

from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.images import MAX_PIXELS, MAX_SIDE
from gme_data.settings import Frozen

MAX_MEMBERS = 2**16
"""Any list in a body may have this many members. They are counted before any is validated, so millions cost nothing."""


class RequestLimits(Frozen):
    """Limits of requests. What exceeds them gets 400; a large body 413, too many at once 429, too slow 408 or 504."""

    max_items: int = Field(default=2048, ge=1, le=MAX_MEMBERS)
    """Items in one request."""
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Bytes of one request body."""
    max_values: int = Field(default=2**17, ge=64)
    """Objects, lists and members in one body, counted before it is parsed."""
    max_pixels: int = Field(default=16 * 2**20, ge=1, le=MAX_PIXELS)
    """Pixels of one picture, width times height."""
    max_side: int = Field(default=16_384, ge=1, le=MAX_SIDE)
    """Pixels of the longer side of one picture."""
    max_request_pixels: int = Field(default=128 * 2**20, ge=1)
    """Pixels of all pictures of one request."""
    max_characters: int = Field(default=100_000, ge=1)
    """Characters of one text or title."""
    max_instruction_characters: int = Field(default=4096, ge=1)
    """Characters of the instruction, which is put before every item."""
    max_request_tokens: int = Field(default=2**19, ge=1)
    """Tokens of one request: of each item its text, its picture and the prompt with the instruction."""
    max_waiting_tokens: int = Field(default=2**20, ge=1)
    """Tokens of one client that may wait for the model. A request of a client of which none wait is always taken."""
    max_waiting: int = Field(default=64, ge=1)
    """Requests accepted and not answered yet. Beyond it the client with most loses one in favour of one with fewer."""
    max_waiting_bytes: int = Field(default=256 * 2**20, ge=1024)
    """Bytes of the bodies of those requests, shared in the same way."""
    max_hits: int = Field(default=100, ge=1)
    """Hits of one search."""
    max_seconds: float = Field(default=120.0, gt=0)
    """Time of one request, from its first byte to its answer."""
    grace_seconds: float = Field(default=30.0, ge=0)
    """Seconds in which a server that stops answers the requests that it computes already."""


class Batching(Frozen):
    """Settings of dynamic batching."""

    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens computed at once; more need more memory."""


def parse_keys(keys: str | None) -> tuple[str, ...]:
    """Parse a comma-separated list of API keys; None means that no key is required.

    Raises:
        FoundryError: A key is empty, occurs twice or can't be sent in a header. The message does not contain it.
    """
    if keys is None:
        return ()
    split = tuple(keys.split(","))
    if not all(key and key.isascii() and key.isprintable() and " " not in key for key in split):
        raise FoundryError(
            "GME_API_KEY is empty or holds characters that can't stand in a header.",
            hint="Use printable ASCII without spaces, several keys with commas between them; unset GME_API_KEY to "
            "serve this machine alone without a key.",
        )
    if len(set(split)) < len(split):
        raise FoundryError("GME_API_KEY holds a key twice.", hint="Give each client a key of its own.")
    return split
