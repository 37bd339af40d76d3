"""One model at work for many clients: admits by requests and by tokens, prepares in threads, batches, counts.

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
from gme_serve.config import Batching, Limits
from gme_serve.errors import ApiError
from gme_serve.fair import FairThreads
from gme_serve.metrics import Metrics
from gme_serve.prepare import Part, Prepared, prepare

_PREPARERS = 2
_ENOUGH = 0.9
"""Part of the grace after which what is not answered yet is told to come again; the rest is for the answers."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Embedded:
    """An answer: `vectors` float32 [n, d], L2-normalised; `tokens` of all items."""

    vectors: Vectors
    tokens: int


class Service:
    """The served model. Use between `start` and `stop`.

    Args:
        name: What clients call the model.
        embedder: The model; from here on, this object alone uses it.
        limits: What a request may ask for.
        batching: How requests are computed together.

    Attributes:
        created: When the model came to be served, in seconds since 1970.
    """

    def __init__(self, name: str, embedder: Embedder, limits: Limits, batching: Batching) -> None:
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
        """Whether a thread still computes, though nobody may wait for it."""
        return self._batcher.computing

    def start(self) -> None:
        """Begin to work. Call it on the event loop."""
        self._batcher.start()

    def drain(self) -> None:
        """Take no more; what the model has begun with is answered within the grace, all else is told to come again."""
        if not self.admission.stopping:
            self.admission.stop()
            loop = asyncio.get_running_loop()
            self._deadline = loop.time() + self.limits.grace_seconds
            loop.call_later(_ENOUGH * self.limits.grace_seconds, self.admission.end_all)

    async def stop(self) -> None:
        """`drain`, then end: at once if nothing is computed any more, else when the grace is over."""
        self.drain()
        await self._batcher.stop(max(0.0, self._deadline - asyncio.get_running_loop().time()))
        self._threads.shutdown()

    async def embed(
        self, ticket: Ticket, parts: Sequence[Part], instruction: str | None, params: Sequence[str]
    ) -> Embedded:
        """The vectors of a request's items.

        Args:
            ticket: Of the request.
            parts: The items, at least one.
            instruction: Of queries: the task in a sentence.
            params: What an error calls each item, such as ``input[0]``.

        Raises:
            ApiError: 400 for a bad item or too many tokens, 429 if too much waits, 503 if nothing is computed.
        """
        if not self._batcher.alive:
            raise stopping()
        windows = prepare(parts, instruction or None, params, self._preparer, self.limits)
        while (prepared := await self.in_thread(ticket, next, windows)) is None:
            pass
        tokens = sum(prepared.tokens)
        self._require_room(ticket, tokens)
        try:
            vectors = await self._batcher.submit(prepared, ticket.client, ticket.begin)
        except FoundryError as error:  # passed every check, so there is no item to name
            raise ApiError(400, f"An item can't be embedded: {error}", code="bad_item", param="input") from error
        self.metrics.items.inc(len(vectors))
        self.metrics.tokens.inc(tokens)
        return Embedded(vectors, tokens)

    async def embed_alone(self, item: dict[str, Any], instruction: str | None) -> Vectors:
        """The vector [d] of an item of the server's own, to which no limits apply, between the requests of clients.

        Raises:
            FoundryError: It can't be embedded.
        """
        (planned,) = await asyncio.to_thread(self._preparer.tokenise_prompts, [item], instruction)
        vectors = await self._batcher.submit(Prepared([item], instruction, [len(planned.item.ids)]))
        alone: Vectors = vectors[0]
        return alone

    async def in_thread(self, ticket: Ticket, work: Callable[..., _Result], *arguments: object) -> _Result:
        """What `work` returns, computed beside the event loop when it is the turn of the ticket's client."""
        return await self._threads.run(ticket.client, work, *arguments)

    def _require_room(self, ticket: Ticket, tokens: int) -> None:
        waiting = self._batcher.tokens_of(ticket.client)
        if waiting and waiting + tokens > self.limits.max_waiting_tokens:
            raise busy(
                f"{waiting} tokens of this client are waiting already; with the {tokens} of this request they would be "
                f"more than the {self.limits.max_waiting_tokens} that may wait. Try again shortly."
            )
