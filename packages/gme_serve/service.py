"""One model at work for many clients: admits by requests and by tokens, prepares in threads, batches, counts.

Knows the embedder's public face and the batcher; not HTTP beyond the status of what it refuses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from gme_data.errors import FoundryError
from gme_embedder.embedder import Embedder
from gme_serve.batcher import Batcher, Vectors
from gme_serve.config import Batching, Limits
from gme_serve.errors import ApiError
from gme_serve.metrics import Metrics
from gme_serve.prepare import Part, Prepared, check_text, count_tokens, prompt_tokens, read_items

_PREPARERS = 2
_WINDOW = 64
"""Items prepared at a time; between two windows of a large request others have their turn."""
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
        self._open = 0
        self._threads = ThreadPoolExecutor(_PREPARERS, "prepare")
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
        return self._batcher.alive

    def start(self) -> None:
        """Begin to work. Call it on the event loop."""
        self._batcher.start()

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        await self._batcher.stop()
        self._threads.shutdown()

    async def embed(self, parts: Sequence[Part], instruction: str | None, params: Sequence[str]) -> Embedded:
        """The vectors of a request's items.

        Args:
            parts: The items, at least one.
            instruction: Of queries: the task in a sentence.
            params: What an error calls each item, such as ``input[0]``.

        Raises:
            ApiError: 400 for a bad item or too many tokens, 429 if too much waits, 503 while the server stops.
        """
        with self._admitted():
            prepared = await self._prepared(parts, instruction or None, params)
            tokens = sum(prepared.tokens)
            self._require_room(tokens)
            try:
                vectors = await self._batcher.submit(prepared)
            except FoundryError as error:  # passed every check, so there is no item to name
                raise ApiError(400, f"An item can't be embedded: {error}", code="bad_item", param="input") from error
        self.metrics.items.inc(len(vectors))
        self.metrics.tokens.inc(tokens)
        return Embedded(vectors, tokens)

    async def in_thread(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """What `work` returns, computed beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _prepared(self, parts: Sequence[Part], instruction: str | None, params: Sequence[str]) -> Prepared:
        """Checked and counted, window by window; a request beyond the limit ends at the window where it passes it."""
        check_text(instruction, "instruction", self.limits)
        items = await self.in_thread(read_items, parts, params, self._preparer.tokenizer, self.limits)
        self._check_tokens(len(items) * await self.in_thread(prompt_tokens, self._preparer, instruction))
        tokens: list[int] = []
        for start in range(0, len(items), _WINDOW):
            window = slice(start, start + _WINDOW)
            tokens += await self.in_thread(count_tokens, self._preparer, items[window], instruction, params[window])
            self._check_tokens(sum(tokens))
        return Prepared(items, instruction, tokens)

    def _check_tokens(self, tokens: int) -> None:
        if tokens > self.limits.max_request_tokens:
            message = (
                f"The request has {tokens} tokens or more; this server takes {self.limits.max_request_tokens} in one "
                "request, each item with the prompt around it. Send several requests."
            )
            raise ApiError(400, message, code="max_tokens_per_request", param="input")

    def _require_room(self, tokens: int) -> None:
        waiting = self._batcher.tokens
        if waiting and waiting + tokens > self.limits.max_waiting_tokens:
            message = (
                f"{waiting} tokens are waiting already; with the {tokens} of this request they would be more than the "
                f"{self.limits.max_waiting_tokens} that may wait. Try again shortly."
            )
            raise ApiError(429, message, code="busy", headers={"Retry-After": "1"})

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
