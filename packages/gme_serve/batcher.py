"""Dynamic batching: waiting requests are encoded together, within a token budget, with clients taking turns.

One thread runs the model. Knows prepared requests and the event loop; neither HTTP nor what a vector means.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gme_serve.config import Batching
from gme_serve.fair import FairQueue
from gme_serve.items import Prepared

Vectors = NDArray[np.float32]
Encode = Callable[[list[dict[str, Any]], str | None], Vectors]


class _PendingRequest:
    """A request that waits. One that is larger than a batch is computed in parts, so some items may be done already."""

    def __init__(self, request: Prepared, done: asyncio.Future[Vectors], on_begin: Callable[[], None]) -> None:
        self._request, self._done, self._on_begin = request, done, on_begin
        self._sums = [0, *accumulate(request.tokens)]
        self._next = 0
        self._vectors: list[Vectors] = []

    @property
    def over(self) -> bool:
        """Whether no result is needed any more: it is answered, a part of it failed, or the client is gone."""
        return self._done.done()

    @property
    def tokens(self) -> int:
        """Tokens of the items that still wait."""
        return self._sums[-1] - self._sums[self._next]

    def fitting(self, budget: int) -> int:
        """Return how many of the next items have `budget` tokens at most, together."""
        return bisect_right(self._sums, self._sums[self._next] + budget) - 1 - self._next

    def take(self, count: int) -> Prepared:
        """Take the next `count` items to be computed."""
        # The request counts as begun with its first items, and is then answered even while the server stops.
        if not self._next:
            self._on_begin()
        items = slice(self._next, self._next + count)
        self._next = items.stop
        return Prepared(self._request.items[items], self._request.instruction, self._request.tokens[items])

    def add(self, result: Vectors | Exception) -> None:
        """Add the vectors of the items that were taken last, or the error that they ended in."""
        if self.over:
            return
        if isinstance(result, Exception):
            self._done.set_exception(result)
            return
        self._vectors.append(result)
        if sum(map(len, self._vectors)) == len(self._request.items):
            self._done.set_result(np.concatenate(self._vectors))


class Batcher:
    """Batches requests between `start` and `stop`, on one event loop.

    There is no delay to fill a batch: an idle model begins with the requests at hand, and those that arrive meanwhile
    make the next batch.

    Args:
        encode: Encodes items with an instruction to vectors [n, d]; called in one thread, one call at a time.
        config: Size of a batch.
        on_batch: Called with the tokens of each batch before it is computed.
    """

    def __init__(self, encode: Encode, config: Batching, on_batch: Callable[[int], None]) -> None:
        self._encode, self._config, self._on_batch = encode, config, on_batch
        self._waiting: FairQueue[_PendingRequest] = FairQueue()
        self._arrived = asyncio.Event()
        self._stopping = self._computing = False
        self._thread = ThreadPoolExecutor(1, "encode")
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Count the requests of which items wait; items that are being computed don't count."""
        return sum(not waiting.over for _, waiting in self._waiting)

    @property
    def tokens(self) -> int:
        """Tokens of all items that wait."""
        return sum(waiting.tokens for _, waiting in self._waiting if not waiting.over)

    def tokens_of(self, client: str) -> int:
        """Return the tokens of a client's items that wait."""
        return sum(waiting.tokens for other, waiting in self._waiting if other == client and not waiting.over)

    @property
    def alive(self) -> bool:
        """Whether requests are accepted and computed."""
        return self._worker is not None and not self._worker.done() and not self._stopping

    @property
    def computing(self) -> bool:
        """Whether the thread is in a call of `encode`, which can't be interrupted."""
        return self._computing

    def start(self) -> None:
        """Start the worker; must be called on the event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self, seconds: float | None = None) -> None:
        """Compute what waits, then stop; after `seconds` stop without."""
        self._stopping = True
        self._arrived.set()
        if self._worker:
            await asyncio.wait([self._worker], timeout=seconds)
            self._worker.cancel()
        self._thread.shutdown(wait=False)

    async def submit(self, request: Prepared, client: str = "", on_begin: Callable[[], None] = lambda: None) -> Vectors:
        """Return the vectors [n, d] of a request's items, in their order.

        Args:
            request: The prepared request.
            client: Client that sent it; clients take turns.
            on_begin: Called before the first of its items are computed.

        Raises:
            Exception: Whatever `encode` raised for this request alone.
        """
        done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append(client, _PendingRequest(request, done, on_begin))
        self._arrived.set()
        return await done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._gather():
            parts = [part for _, part in batch]
            self._on_batch(sum(sum(part.tokens) for part in parts))
            results = await loop.run_in_executor(self._thread, self._compute, parts)
            for (waiting, _), result in zip(batch, results, strict=True):
                waiting.add(result)

    def _compute(self, parts: list[Prepared]) -> list[Vectors | Exception]:
        self._computing = True
        try:
            return compute(self._encode, parts)
        finally:
            self._computing = False

    async def _gather(self) -> list[tuple[_PendingRequest, Prepared]]:
        """Wait for the items of the next batch; an empty batch means that the batcher stops and nothing waits."""
        batch: list[tuple[_PendingRequest, Prepared]] = []
        while not batch and not (self._stopping and not len(self._waiting)):
            await self._arrived.wait()
            batch = self._take_turns()
            # While items wait, or at the end, the next call must not block.
            if not len(self._waiting) and not self._stopping:
                self._arrived.clear()
        return batch

    def _take_turns(self) -> list[tuple[_PendingRequest, Prepared]]:
        """Fill a batch from the oldest request of each client in turn; its other items wait behind its client's others.

        So a request of thousands of items delays a small one by one batch and not by all of its own, and a thousand
        requests of one client delay another client's by no more. A request that fits into one batch is never split.
        """
        batch: list[tuple[_PendingRequest, Prepared]] = []
        budget = self._config.batch_tokens
        for _ in range(len(self._waiting)):
            client, waiting = self._waiting.peek()
            if not waiting.over:
                fits_next_batch = budget < waiting.tokens <= self._config.batch_tokens
                count = waiting.fitting(budget)
                if batch and (fits_next_batch or count < 1):
                    break
                # An item that is larger than a batch is computed alone.
                part = waiting.take(max(count, 1))
                batch.append((waiting, part))
                budget -= sum(part.tokens)
            self._waiting.pop()
            if waiting.tokens and not waiting.over:
                self._waiting.append(client, waiting)
        return batch


def compute(encode: Encode, requests: Sequence[Prepared]) -> list[Vectors | Exception]:
    """Return the vectors of each request, or its error; requests with the same instruction are encoded together."""
    groups: dict[str | None, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(request.instruction, []).append(number)
    results: dict[int, Vectors | Exception] = {}
    for numbers in groups.values():
        results.update(zip(numbers, _compute_group(encode, [requests[number] for number in numbers]), strict=True))
    return [results[number] for number in range(len(requests))]


def _compute_group(encode: Encode, requests: list[Prepared]) -> list[Vectors | Exception]:
    """Encode requests together; if that fails, one by one, so that each request gets only its own error."""
    try:
        vectors = encode([item for request in requests for item in request.items], requests[0].instruction)
    except Exception as error:  # becomes the result of the request that caused it
        if len(requests) == 1:
            return [error]
        return [result for request in requests for result in _compute_group(encode, [request])]
    return list(np.split(vectors, list(accumulate(len(request.items) for request in requests))[:-1]))
