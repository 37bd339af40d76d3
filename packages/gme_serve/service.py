"""One model that serves many clients: admits by requests and tokens, prepares in threads, batches, and counts.

Knows the embedder's public face and the batcher; not HTTP beyond the status of what it refuses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gme_data.errors import FoundryError
from gme_embedder.embedder import Embedder
from gme_serve.admission import Admission, Ticket, busy, stopping
from gme_serve.batcher import Batcher, Vectors
from gme_serve.config import Batching, RequestLimits
from gme_serve.errors import ApiError
from gme_serve.fair import FairThreads
from gme_serve.items import Prepared, RequestItem
from gme_serve.metrics import Metrics
from gme_serve.prepare import prepare

_PREPARERS = 2
"""Threads that prepare requests."""
_END_ALL_AFTER = 0.9
"""Part of the grace period after which all requests are ended; the remainder is for sending the answers."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Embedded:
    """The result of a request.

    Attributes:
        vectors: L2-normalised vectors, float32 [n, d].
        tokens: Tokens of all items together.
    """

    vectors: Vectors
    tokens: int


class Service:
    """The served model, between `start` and `stop`.

    Args:
        name: Name of the model for clients.
        embedder: The model; from here on, no other object may use it.
        limits: Limits of requests.
        batching: Settings of batches.

    Attributes:
        created: Start of the service, in seconds since 1970.
    """

    def __init__(self, name: str, embedder: Embedder, limits: RequestLimits, batching: Batching) -> None:
        self.name, self.limits, self.metrics = name, limits, Metrics()
        self.dimension, self.created = embedder.dimension, int(time.time())
        self._preparer = embedder.preparer
        self.admission = Admission(limits)
        self._threads = FairThreads(_PREPARERS, "prepare")
        self._batcher = Batcher(
            lambda items, instruction: embedder.encode(items, instruction, batch_tokens=batching.batch_tokens),
            batching,
            self.metrics.batch_tokens.observe,
        )
        self.metrics.waiting.set_function(lambda: len(self._batcher))
        self.metrics.waiting_tokens.set_function(lambda: self._batcher.tokens)

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self._batcher.alive and not self.admission.stopping

    @property
    def computing(self) -> bool:
        """Whether a thread still computes, even if no request waits for it any more."""
        return self._batcher.computing

    def start(self) -> None:
        """Start the batcher; must be called on the event loop."""
        self._batcher.start()

    def drain(self) -> None:
        """Refuse new requests; those that the model has begun with are answered in the grace period, others end now."""
        # This is called twice: at the signal, and when the application shuts down.
        if not self.admission.stopping:
            self.admission.stop()
            loop = asyncio.get_running_loop()
            self._deadline = loop.time() + self.limits.grace_seconds
            loop.call_later(_END_ALL_AFTER * self.limits.grace_seconds, self.admission.end_all)

    async def stop(self) -> None:
        """Drain, then stop: at once if nothing is computed, else when the grace period is over."""
        self.drain()
        await self._batcher.stop(max(0.0, self._deadline - asyncio.get_running_loop().time()))
        self._threads.shutdown()

    async def embed(
        self, ticket: Ticket, items: Sequence[RequestItem], instruction: str | None, params: Sequence[str]
    ) -> Embedded:
        """Embed the items of a request.

        Args:
            ticket: Ticket of the request.
            items: The items, at least one.
            instruction: Instruction of queries: the task in a sentence.
            params: Name of each item in errors, such as ``input[0]``.

        Raises:
            ApiError: 400 for a bad item or too many tokens, 429 if too much waits, 503 if nothing is computed.
        """
        if not self._batcher.alive:
            raise stopping()
        windows = prepare(items, instruction or None, params, self._preparer, self.limits)
        while (prepared := await self.in_thread(ticket, next, windows)) is None:
            pass
        tokens = sum(prepared.tokens)
        self._check_waiting_tokens(ticket, tokens)
        try:
            vectors = await self._batcher.submit(prepared, ticket.client, ticket.begin)
        except FoundryError as error:  # all items passed their checks, so none can be named
            raise ApiError(400, f"An item can't be embedded: {error}", code="bad_item", param="input") from error
        self.metrics.items.inc(len(vectors))
        self.metrics.tokens.inc(tokens)
        return Embedded(vectors, tokens)

    async def embed_alone(self, item: dict[str, Any], instruction: str | None) -> Vectors:
        """Embed an item of the server itself, to which no limits apply, between the requests of clients; returns [d].

        Raises:
            FoundryError: The item can't be embedded.
        """
        (planned,) = await asyncio.to_thread(self._preparer.tokenise_prompts, [item], instruction)
        vectors = await self._batcher.submit(Prepared([item], instruction, [len(planned.item.ids)]))
        alone: Vectors = vectors[0]
        return alone

    async def in_thread(self, ticket: Ticket, work: Callable[..., _Result], *arguments: object) -> _Result:
        """Return the result of `work` in a thread, when it is the turn of the ticket's client."""
        return await self._threads.run(ticket.client, work, *arguments)

    def _check_waiting_tokens(self, ticket: Ticket, tokens: int) -> None:
        waiting = self._batcher.tokens_of(ticket.client)
        if waiting and waiting + tokens > self.limits.max_waiting_tokens:
            raise busy(
                f"{waiting} tokens of this client are waiting already; with the {tokens} of this request they would be "
                f"more than the {self.limits.max_waiting_tokens} that may wait. Try again shortly."
            )
