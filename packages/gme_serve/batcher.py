"""Requests that arrive together are computed together, by tokens and in turns; one thread holds the model.

Knows prepared requests and the event loop; neither HTTP nor what a vector means.
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
from gme_serve.prepare import Prepared

Vectors = NDArray[np.float32]
Encode = Callable[[list[dict[str, Any]], str | None], Vectors]


class _Waiting:
    """A request of which some items may be computed already: one that is larger than a batch is computed in parts."""

    def __init__(self, request: Prepared, done: asyncio.Future[Vectors], on_begin: Callable[[], None]) -> None:
        self._request, self._done, self._on_begin = request, done, on_begin
        self._sums = [0, *accumulate(request.tokens)]
        self._taken = 0
        self._vectors: list[Vectors] = []

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more: it is answered, a part of it failed, or the client is gone."""
        return self._done.done()

    @property
    def tokens(self) -> int:
        """Tokens of the items that wait."""
        return self._sums[-1] - self._sums[self._taken]

    def fitting(self, room: int) -> int:
        """How many of the next items come to `room` tokens at most."""
        return bisect_right(self._sums, self._sums[self._taken] + room) - 1 - self._taken

    def take(self, count: int) -> Prepared:
        """The next `count` items."""
        if not self._taken:
            self._on_begin()
        items = slice(self._taken, self._taken + count)
        self._taken = items.stop
        return Prepared(self._request.items[items], self._request.instruction, self._request.tokens[items])

    def add(self, result: Vectors | Exception) -> None:
        """What became of the items taken last."""
        if self.over:
            return
        if isinstance(result, Exception):
            self._done.set_exception(result)
            return
        self._vectors.append(result)
        if sum(map(len, self._vectors)) == len(self._request.items):
            self._done.set_result(np.concatenate(self._vectors))


class Batcher:
    """Lives between `start` and `stop` on one event loop.

    Nothing is waited for: an idle model begins with what there is, and what comes meanwhile makes the next batch.

    Args:
        encode: Items and instruction to vectors [n, d]; called in one thread, one call at a time.
        config: Size of a batch.
        on_batch: Told the tokens of each batch before it is computed.
    """

    def __init__(self, encode: Encode, config: Batching, on_batch: Callable[[int], None]) -> None:
        self._encode, self._config, self._on_batch = encode, config, on_batch
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._arrived = asyncio.Event()
        self._stopping = self._computing = False
        self._thread = ThreadPoolExecutor(1, "encode")
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Requests of which items wait; those being computed no longer do."""
        return sum(not waiting.over for _, waiting in self._waiting)

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return sum(waiting.tokens for _, waiting in self._waiting if not waiting.over)

    def tokens_of(self, client: str) -> int:
        """Tokens of a client that wait."""
        return sum(waiting.tokens for other, waiting in self._waiting if other == client and not waiting.over)

    @property
    def alive(self) -> bool:
        """Whether requests are taken and computed."""
        return self._worker is not None and not self._worker.done() and not self._stopping

    @property
    def computing(self) -> bool:
        """Whether the thread is at work, which nothing can end."""
        return self._computing

    def start(self) -> None:
        """Begin to work. Call it on the event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self, seconds: float | None = None) -> None:
        """Finish what waits, then end; after `seconds` end without."""
        self._stopping = True
        self._arrived.set()
        if self._worker:
            await asyncio.wait([self._worker], timeout=seconds)
            self._worker.cancel()
        self._thread.shutdown(wait=False)

    async def submit(self, request: Prepared, client: str = "", on_begin: Callable[[], None] = lambda: None) -> Vectors:
        """The vectors [n, d] of a request's items, in their order.

        Args:
            request: What to compute.
            client: Whose it is; clients take turns.
            on_begin: Called when the first of its items are computed.

        Raises:
            Exception: Whatever `encode` raised for this request alone.
        """
        done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append(client, _Waiting(request, done, on_begin))
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

    async def _gather(self) -> list[tuple[_Waiting, Prepared]]:
        """The next items of the requests that wait, within the budget; none only at the end of all work."""
        batch: list[tuple[_Waiting, Prepared]] = []
        while not batch and not (self._stopping and not len(self._waiting)):
            await self._arrived.wait()
            batch = self._take_turns()
            if not len(self._waiting) and not self._stopping:
                self._arrived.clear()
        return batch

    def _take_turns(self) -> list[tuple[_Waiting, Prepared]]:
        """Of each client's oldest request, in turn, what fits; what is left of one waits behind its client's others.

        So a request of thousands of items holds a small one up for one batch, not for all of its own, and a thousand
        requests of one client hold another client's up no more than that. One that fits into a batch is never parted.
        """
        batch: list[tuple[_Waiting, Prepared]] = []
        room = self._config.batch_tokens
        for _ in range(len(self._waiting)):
            client, waiting = self._waiting.peek()
            if not waiting.over:
                whole_later = room < waiting.tokens <= self._config.batch_tokens
                count = waiting.fitting(room)
                if batch and (whole_later or count < 1):
                    break
                part = waiting.take(max(count, 1))  # an item larger than a batch is computed alone
                batch.append((waiting, part))
                room -= sum(part.tokens)
            self._waiting.pop()
            if waiting.tokens and not waiting.over:
                self._waiting.append(client, waiting)
        return batch


def compute(encode: Encode, requests: Sequence[Prepared]) -> list[Vectors | Exception]:
    """The vectors of each request, or what went wrong with it; those with one instruction go together."""
    groups: dict[str | None, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(request.instruction, []).append(number)
    results: dict[int, Vectors | Exception] = {}
    for numbers in groups.values():
        results.update(zip(numbers, _compute_group(encode, [requests[number] for number in numbers]), strict=True))
    return [results[number] for number in range(len(requests))]


def _compute_group(encode: Encode, requests: list[Prepared]) -> list[Vectors | Exception]:
    """Together; if that fails, one by one, so that each request meets only its own failure."""
    try:
        vectors = encode([item for request in requests for item in request.items], requests[0].instruction)
    except Exception as error:  # handed to the request that it belongs to
        if len(requests) == 1:
            return [error]
        return [result for request in requests for result in _compute_group(encode, [request])]
    return list(np.split(vectors, list(accumulate(len(request.items) for request in requests))[:-1]))
