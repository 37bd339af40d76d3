"""Which requests are at work: how many at once and by whom, how long each may take, and which end when the server does.

A request is counted from before its body is read, so that what waits can't fill the memory. Knows clients by name,
bytes and time; neither bodies nor what is computed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gme_serve.config import Limits
from gme_serve.errors import ApiError

_RETRY = {"Retry-After": "1"}
_RETRY_ELSEWHERE = {"Retry-After": "5"}
"""By then a server that was told to stop is gone and the next one up, or another one answers."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A request that is at work.

    Attributes:
        client: Whose it is.
        body_bytes: Bytes of its body that are in memory.
        read: Whether its body is complete.
        computing: Whether the model has begun with it.
        error: What it is answered instead of what it asked for.
    """

    client: str
    timeout: asyncio.Timeout
    body_bytes: int = 0
    read: bool = False
    computing: bool = False
    error: ApiError | None = None

    @property
    def ended(self) -> bool:
        """Whether it was ended before its time."""
        return self.error is not None

    def begin(self) -> None:
        """Tell that the model has begun with it."""
        self.computing = True

    def end(self, error: ApiError) -> None:
        """End it now: whatever it waits for is cancelled, and the answer is `error`."""
        if not self.ended and not self.timeout.expired():
            self.error = error
            self.timeout.reschedule(asyncio.get_running_loop().time())


class Admission:
    """The requests at work. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tickets: list[Ticket] = []  # oldest first
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether no request is taken any more."""
        return self._stopping

    @asynccontextmanager
    async def admit(self, client: str) -> AsyncIterator[Ticket]:
        """A request of `client` for as long as it is at work.

        Raises:
            ApiError: 429 if too many are at work, 503 while the server stops, 408 or 504 if it takes too long.
        """
        if self._stopping:
            raise stopping()
        if len(self._at_work()) >= self._limits.max_waiting:
            self._make_room(client, lambda _: 1, f"{self._limits.max_waiting} requests are waiting already.")
        timeout = asyncio.timeout(self._limits.max_seconds)
        ticket = Ticket(client, timeout)
        self._tickets.append(ticket)
        try:
            async with timeout:
                yield ticket
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ticket.error or self._too_slow(ticket) from None
        finally:
            self._tickets.remove(ticket)

    def count_bytes(self, ticket: Ticket, count: int) -> None:
        """Add bytes of a body to those in memory.

        Raises:
            ApiError: 429 if they are too many and no other client has more.
        """
        ticket.body_bytes += count
        while sum(other.body_bytes for other in self._at_work()) > self._limits.max_waiting_bytes:
            most = f"Bodies of {self._limits.max_waiting_bytes} bytes are waiting already."
            self._make_room(ticket.client, lambda other: other.body_bytes, most)

    def stop(self) -> None:
        """Take no more requests; those that the model has not begun with are told to come again."""
        self._stopping = True
        self._end(lambda ticket: not ticket.computing)

    def end_all(self) -> None:
        """Tell all that are left to come again: the grace is over."""
        self._end(lambda _: True)

    def _end(self, which: Callable[[Ticket], bool]) -> None:
        for ticket in self._at_work():
            if which(ticket):
                ticket.end(stopping())

    def _at_work(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets if not ticket.ended]

    def _make_room(self, client: str, weight: Callable[[Ticket], int], why: str) -> None:
        """End the newest or largest request of the client that has most, if that is another one and has clearly more.

        So whoever floods fills the room that nobody else wants, and no more.
        """
        loads: Counter[str] = Counter()
        for ticket in self._at_work():
            loads[ticket.client] += weight(ticket)
        most, load = loads.most_common(1)[0]
        theirs = [ticket for ticket in self._at_work() if ticket.client == most]
        # What the model has begun with goes last: a flood of large requests is begun with all over.
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
    """What is answered while too much waits."""
    return ApiError(429, message, code="busy", headers=_RETRY)


def stopping() -> ApiError:
    """What is answered by a server that was told to stop."""
    return ApiError(503, "The server is stopping. Try again shortly.", code="not_ready", headers=_RETRY_ELSEWHERE)
