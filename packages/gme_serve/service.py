"""One model at work for many clients: admits, prepares in threads, batches, counts.

Knows the embedder's public face and the batcher; not HTTP beyond the status of what it refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from gme_embedder.embedder import Embedder
from gme_serve.batcher import Batcher, Vectors
from gme_serve.config import Batching, Limits
from gme_serve.errors import ApiError
from gme_serve.metrics import Metrics
from gme_serve.prepare import Part, prepare

_PREPARERS = 2


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
    """

    def __init__(self, name: str, embedder: Embedder, limits: Limits, batching: Batching) -> None:
        self.name, self.limits, self.metrics = name, limits, Metrics()
        self.dimension = embedder.dimension
        self._preparer = embedder.preparer
        self._open = 0
        self._threads = ThreadPoolExecutor(_PREPARERS, "prepare")
        self._batcher = Batcher(
            lambda items, instruction: embedder.encode(items, instruction, batch_tokens=batching.batch_tokens),
            batching,
            self.metrics.batch_tokens.observe,
        )
        self.metrics.waiting.set_function(lambda: len(self._batcher))

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self._batcher.alive

    def start(self) -> None:
        """Begin to work. Call it on the event loop."""
        self._batcher.start()

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        await self._batcher.stop()
        self._threads.shutdown()

    async def embed(self, parts: Sequence[Part], instruction: str | None, places: Sequence[str]) -> Embedded:
        """The vectors of a request's items.

        Args:
            parts: The items, at least one.
            instruction: Of queries: the task in a sentence.
            places: What an error calls each item.

        Raises:
            ApiError: 400 for a bad item, 429 if too many requests are open, 503 while the server stops.
        """
        with self._admitted():
            loop = asyncio.get_running_loop()
            arguments = (self._preparer, self.limits, parts, instruction or None, places)
            prepared = await loop.run_in_executor(self._threads, prepare, *arguments)
            vectors = await self._batcher.submit(prepared)
        self.metrics.items.inc(len(vectors))
        self.metrics.tokens.inc(prepared.tokens)
        return Embedded(vectors, prepared.tokens)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if not self.ready:
            raise ApiError(503, "The server is stopping. Try again shortly.", code="not_ready")
        if self._open >= self.limits.max_waiting:
            message = f"{self._open} requests are waiting already. Try again shortly."
            raise ApiError(429, message, code="busy", headers={"Retry-After": "1"})
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
