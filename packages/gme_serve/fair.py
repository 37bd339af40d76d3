"""Clients in turn: a queue that a flood of one client does not fill for the others, and threads that work it off.

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
    """First in, first out for each client; from one item to the next, clients take turns."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[_Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[tuple[str, _Item]]:
        """All items with their clients; not in the order in which they come."""
        return ((client, item) for client, queue in self._queues.items() for item in queue)

    def append(self, client: str, item: _Item) -> None:
        """Put an item behind those of its client; a client without any comes behind the others."""
        self._queues.setdefault(client, deque()).append(item)

    def peek(self) -> tuple[str, _Item]:
        """The next item and its client. There must be one."""
        client, queue = next(iter(self._queues.items()))
        return client, queue[0]

    def pop(self) -> tuple[str, _Item]:
        """The next item, taken out, and its client, which now comes behind the others. There must be one."""
        client, queue = next(iter(self._queues.items()))
        item = queue.popleft()
        self._queues.move_to_end(client)
        if not queue:
            del self._queues[client]
        return client, item


class FairThreads:
    """Work beside the event loop; while all threads are busy, clients take turns.

    Args:
        threads: How many.
        name: Of the threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._pool, self._idle = ThreadPoolExecutor(threads, name), threads
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    async def run(self, client: str, work: Callable[..., _Result], *arguments: object) -> _Result:
        """What `work` returns or raises. If its caller is cancelled, work that has begun still ends in its thread."""
        loop = asyncio.get_running_loop()
        if self._idle:
            self._idle -= 1
        else:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(client, turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was this one's turn, and is another's now
                    self._release()
                raise
        running = self._pool.submit(work, *arguments)

        def ended(_running: Future[_Result]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._release)

        running.add_done_callback(ended)
        return await asyncio.wrap_future(running)

    def shutdown(self) -> None:
        """Take no more work; what runs goes on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _release(self) -> None:
        while len(self._waiting):
            _, turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._idle += 1
