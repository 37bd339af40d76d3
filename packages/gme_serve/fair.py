"""Fair scheduling between clients: a queue in which clients take turns, and threads that serve such a queue.

Knows clients by name only; neither what waits nor what is done with it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class FairQueue(Generic[_Item]):
    """A queue that is first in, first out for each client, and from which clients are served in turn."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[_Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[tuple[str, _Item]]:
        """Iterate over all items with their clients, in no particular order."""
        return ((client, item) for client, queue in self._queues.items() for item in queue)

    def append(self, client: str, item: _Item) -> None:
        """Append an item to those of its client; a client without items goes to the end of the turns."""
        self._queues.setdefault(client, deque()).append(item)

    def peek(self) -> tuple[str, _Item]:
        """Return the client of the next item, and the item. The queue must not be empty."""
        client, queue = next(iter(self._queues.items()))
        return client, queue[0]

    def pop(self) -> tuple[str, _Item]:
        """Remove the next item and return it with its client, whose turn is then the last. It must not be empty."""
        client, queue = next(iter(self._queues.items()))
        item = queue.popleft()
        self._queues.move_to_end(client)
        if not queue:
            del self._queues[client]
        return client, item


class FairThreads:
    """A pool of threads beside the event loop; while all threads are busy, clients take turns.

    Args:
        threads: Number of threads.
        name: Name of the threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._pool, self._idle = ThreadPoolExecutor(threads, name), threads
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    async def run(self, client: str, work: Callable[..., _Result], *arguments: object) -> _Result:
        """Return the result of `work` in a thread. If the caller is cancelled, work that has begun still completes."""
        loop = asyncio.get_running_loop()
        if self._idle:
            self._idle -= 1
        else:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(client, turn)
            try:
                await turn
            except asyncio.CancelledError:
                # It was this caller's turn already; without the release the thread would stay idle for ever.
                if turn.done() and not turn.cancelled():
                    self._release()
                raise
        running = self._pool.submit(work, *arguments)

        def ended(_running: Future[_Result]) -> None:
            with suppress(RuntimeError):  # the loop is closed, and with it all who waited
                loop.call_soon_threadsafe(self._release)

        running.add_done_callback(ended)
        return await asyncio.wrap_future(running)

    def shutdown(self) -> None:
        """Accept no more work; work that runs goes on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _release(self) -> None:
        while len(self._waiting):
            _, turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._idle += 1
