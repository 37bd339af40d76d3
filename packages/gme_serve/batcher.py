"""Requests that arrive together are computed together, by tokens; one thread holds the model.

Knows prepared requests and the event loop; neither HTTP nor what a vector means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gme_serve.config import Batching
from gme_serve.prepare import Prepared

Vectors = NDArray[np.float32]
Encode = Callable[[list[dict[str, Any]], str | None], Vectors]


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Prepared
    done: asyncio.Future[Vectors]


class Batcher:
    """Lives between `start` and `stop` on one event loop.

    Args:
        encode: Items and instruction to vectors [n, d]; called in one thread, one call at a time.
        config: Size of a batch and how long to wait for it.
        on_batch: Told the tokens of each batch before it is computed.
    """

    def __init__(self, encode: Encode, config: Batching, on_batch: Callable[[int], None]) -> None:
        self._encode, self._config, self._on_batch = encode, config, on_batch
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._stopping = False
        self._thread = ThreadPoolExecutor(1, "encode")
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Requests that wait; those being computed no longer do."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether requests are taken and computed."""
        return self._worker is not None and not self._worker.done() and not self._stopping

    def start(self) -> None:
        """Begin to work. Call it on the event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Finish what waits, then end."""
        self._stopping = True
        self._arrived.set()
        if self._worker:
            await self._worker
        self._thread.shutdown()

    async def submit(self, request: Prepared) -> Vectors:
        """The vectors [n, d] of a request's items, in their order.

        Raises:
            Exception: Whatever `encode` raised for this request alone.
        """
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._gather():
            self._on_batch(sum(waiting.request.tokens for waiting in batch))
            requests = [waiting.request for waiting in batch]
            results = await loop.run_in_executor(self._thread, compute, self._encode, requests)
            for waiting, result in zip(batch, results, strict=True):
                _answer(waiting.done, result)

    async def _gather(self) -> list[_Waiting]:
        """The next requests, oldest first, at least one and within the budget; none only at the end of all work."""
        await self._arrived.wait()
        if sum(waiting.request.tokens for waiting in self._waiting) < self._config.batch_tokens and not self._stopping:
            await asyncio.sleep(self._config.wait_ms / 1000)
        batch: list[_Waiting] = []
        tokens = 0
        while self._waiting and (not batch or tokens + self._waiting[0].request.tokens <= self._config.batch_tokens):
            batch.append(self._waiting.popleft())
            tokens += batch[-1].request.tokens
        if not self._waiting and not self._stopping:
            self._arrived.clear()
        return batch


def compute(encode: Encode, requests: Sequence[Prepared]) -> list[Vectors | Exception]:
    """The vectors of each request, or what went wrong with it; those with one instruction go together."""
    groups: dict[str | None, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(request.instruction, []).append(place)
    results: dict[int, Vectors | Exception] = {}
    for places in groups.values():
        results.update(zip(places, _compute_group(encode, [requests[place] for place in places]), strict=True))
    return [results[place] for place in range(len(requests))]


def _compute_group(encode: Encode, requests: list[Prepared]) -> list[Vectors | Exception]:
    """Together; if that fails, one by one, so that each request meets only its own failure."""
    try:
        vectors = encode([item for request in requests for item in request.items], requests[0].instruction)
    except Exception as error:  # handed to the request that it belongs to
        if len(requests) == 1:
            return [error]
        return [result for request in requests for result in _compute_group(encode, [request])]
    return list(np.split(vectors, list(accumulate(len(request.items) for request in requests))[:-1]))


def _answer(done: asyncio.Future[Vectors], result: Vectors | Exception) -> None:
    if done.cancelled():  # the client is gone
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)
