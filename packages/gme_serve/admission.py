"""Admission control: how many requests are in progress, for which clients, for how long, and how they end at shutdown.

A request counts from before its body is read, so that waiting requests can't fill the memory. Knows clients by name,
bytes and time; neither bodies nor what is computed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gme_serve.config import RequestLimits
from gme_serve.errors import ApiError

_RETRY = {"Retry-After": "1"}
_RETRY_AFTER_STOP = {"Retry-After": "5"}
"""The time in which a server that stops is replaced by the next one."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in progress.

    Attributes:
        client: Client that sent it.
        timeout: The timeout that ends it.
        body_bytes: Bytes of its body that are in memory.
        read: Whether its body is complete.
        computing: Whether the model has begun with it.
        error: Error that answers it, if it was ended early.
    """

    client: str
    timeout: asyncio.Timeout
    body_bytes: int = 0
    read: bool = False
    computing: bool = False
    error: ApiError | None = None

    @property
    def ended(self) -> bool:
        """Whether the request was ended early."""
        return self.error is not None

    def begin(self) -> None:
        """Note that the model has begun with the request."""
        self.computing = True

    def end(self, error: ApiError) -> None:
        """End the request now: what it waits for is cancelled, and it is answered by `error`."""
        if not self.ended and not self.timeout.expired():
            self.error = error
            # A timeout that is due at once cancels the request wherever it waits.
            self.timeout.reschedule(asyncio.get_running_loop().time())


class Admission:
    """The requests in progress, of one event loop."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._tickets: list[Ticket] = []  # oldest first
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether new requests are refused, since the server stops."""
        return self._stopping

    @asynccontextmanager
    async def admit(self, client: str) -> AsyncIterator[Ticket]:
        """Admit a request of `client` for the duration of the `with` block.

        Yields:
            The ticket of the request.

        Raises:
            ApiError: 429 if too many requests are in progress, 503 while the server stops, 408 or 504 if the request
                takes too long.
        """
        if self._stopping:
            raise stopping()
        if len(self._in_progress()) >= self._limits.max_waiting:
            self._end_for(client, lambda _: 1, f"{self._limits.max_waiting} requests are waiting already.")
        timeout = asyncio.timeout(self._limits.max_seconds)
        ticket = Ticket(client, timeout)
        self._tickets.append(ticket)
        try:
            async with timeout:
                yield ticket
        except TimeoutError:
            # A TimeoutError of the request's own work is no timeout of the request.
            if not timeout.expired():
                raise
            # `Ticket.end` lets the same timeout expire, and leaves the reason.
            raise ticket.error or self._too_slow(ticket) from None
        finally:
            self._tickets.remove(ticket)

    def count_bytes(self, ticket: Ticket, count: int) -> None:
        """Add bytes of a request's body to those in memory.

        Raises:
            ApiError: 429 if there are too many and no other client has more.
        """
        ticket.body_bytes += count
        while sum(other.body_bytes for other in self._in_progress()) > self._limits.max_waiting_bytes:
            most = f"Bodies of {self._limits.max_waiting_bytes} bytes are waiting already."
            self._end_for(ticket.client, lambda other: other.body_bytes, most)

    def stop(self) -> None:
        """Refuse new requests, and end those that the model has not begun with."""
        self._stopping = True
        self._end(lambda ticket: not ticket.computing)

    def end_all(self) -> None:
        """End all requests, since the grace period is over."""
        self._end(lambda _: True)

    def _end(self, which: Callable[[Ticket], bool]) -> None:
        for ticket in self._in_progress():
            if which(ticket):
                ticket.end(stopping())

    def _in_progress(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets if not ticket.ended]

    def _end_for(self, client: str, weight: Callable[[Ticket], int], why: str) -> None:
        """End a request of the client with the greatest load in favour of `client`, or raise 429 where that is unfair.

        The newest or largest request of that client ends, if it is another client and would still have more than
        `client` without it. So a flood of one client takes capacity that no other client needs, and no more.
        """
        loads: Counter[str] = Counter()
        for ticket in self._in_progress():
            loads[ticket.client] += weight(ticket)
        most, load = loads.most_common(1)[0]
        theirs = [ticket for ticket in self._in_progress() if ticket.client == most]
        # Requests that the model has begun with end last. They may end, though: of a flood of large requests, which
        # are computed in turns, the model has begun with all.
        victim = max(reversed(theirs), key=lambda ticket: (not ticket.computing, weight(ticket)))
        if most == client or load - weight(victim) <= loads[client]:
            raise busy(f"{why} Try again shortly.")
        victim.end(busy(f"{why} This client has most of them. Try again shortly."))

    def _too_slow(self, ticket: Ticket) -> ApiError:
        seconds = f"{self._limits.max_seconds:g} seconds"
        if not ticket.read:
            return ApiError(408, f"The body did not arrive within {seconds}.", code="body_too_slow")
        message = f"The answer was not ready within {seconds}. Send fewer or smaller items, or try again shortly."
        return ApiError(504, message, code="timeout", headers=_RETRY)


def busy(message: str) -> ApiError:
    """Make the answer to a request while too many wait."""
    return ApiError(429, message, code="busy", headers=_RETRY)


def stopping() -> ApiError:
    """Make the answer to a request while the server stops."""
    return ApiError(503, "The server is stopping. Try again shortly.", code="not_ready", headers=_RETRY_AFTER_STOP)
