"""A flood of one client holds another up for one batch, in the queue, in the threads and at the door."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from serving import ConstantEncoder, client_of, error_of, in_thread, until

from gme_serve.admission import Admission
from gme_serve.app import create_app
from gme_serve.batcher import Batcher
from gme_serve.config import Batching, RequestLimits
from gme_serve.errors import ApiError
from gme_serve.fair import FairQueue, FairThreads
from gme_serve.items import Prepared
from gme_serve.service import Service

pytestmark = pytest.mark.xdist_group("serve")


def test_clients_take_turns_and_each_keeps_its_order():
    queue = FairQueue[int]()
    for number in range(4):
        queue.append("flood", number)
    queue.append("other", 10)
    queue.append("third", 20)
    queue.append("other", 11)
    assert len(queue) == len(list(queue)) == 7
    assert queue.peek() == ("flood", 0)
    assert [queue.pop()[1] for _ in range(7)] == [0, 10, 20, 1, 11, 2, 3]
    assert len(queue) == 0


def test_a_flood_holds_another_client_up_for_one_batch():
    computed = []

    def encode(items, _instruction):
        computed.append([item["text"] for item in items])
        return np.zeros((len(items), 1), np.float32)

    async def run():
        batcher = Batcher(encode, Batching(batch_tokens=20), lambda _: None)
        batcher.start()
        submitted = [("flood", f"f{n}") for n in range(30)] + [("other", "o")]
        await asyncio.gather(*(batcher.submit(Prepared([{"text": text}], None, [10]), who) for who, text in submitted))
        await batcher.stop()

    asyncio.run(run())
    assert computed[0] == ["f0", "o"], "not behind 30 others"
    assert computed[1] == ["f1", "f2"]


def test_threads_go_to_clients_in_turn_and_outlive_who_waited_for_them():
    order, go = [], threading.Event()

    async def run():
        threads = FairThreads(1, "test")

        async def work(client, number):
            await threads.run(client, lambda: go.wait(10) and order.append((client, number)))

        flood = [asyncio.create_task(work("flood", number)) for number in range(4)]
        await asyncio.sleep(0.05)
        other = asyncio.create_task(work("other", 0))
        await asyncio.sleep(0.05)
        flood[0].cancel()  # its work goes on, and its thread is not another's meanwhile
        flood[2].cancel()
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.gather(*flood, other, return_exceptions=True)
        threads.shutdown()

    asyncio.run(run())
    assert order == [("flood", 0), ("flood", 1), ("other", 0), ("flood", 3)]


def admitted(limits: RequestLimits, scenario):
    """Run a scenario with an `Admission`; `hold` keeps a request at work until it is told to let go."""

    async def run():
        admission, outcomes, go = Admission(limits), [], asyncio.Event()

        async def hold(client, *, computing=False, body_bytes=0):
            try:
                async with admission.admit(client) as ticket:
                    ticket.computing = computing
                    admission.count_bytes(ticket, body_bytes)
                    await go.wait()
                    outcomes.append((client, 200))
            except ApiError as error:
                outcomes.append((client, error.status_code))

        tasks = []

        async def ask(client, count=1, **what):
            tasks.extend(asyncio.create_task(hold(client, **what)) for _ in range(count))
            await asyncio.sleep(0.01)

        await scenario(admission, ask)
        go.set()
        await asyncio.gather(*tasks)
        return sorted(outcomes)

    return asyncio.run(run())


def test_a_full_room_is_shared():
    async def scenario(_admission, ask):
        await ask("flood", 6)
        await ask("flood")
        await ask("other", 5)

    outcomes = admitted(RequestLimits(max_waiting=6), scenario)
    assert outcomes == sorted([("flood", 200)] * 3 + [("flood", 429)] * 4 + [("other", 200)] * 3 + [("other", 429)] * 2)


def test_bytes_are_shared_too():
    async def scenario(_admission, ask):
        await ask("flood", 4, body_bytes=1000)
        await ask("flood", body_bytes=1000)
        await ask("other", body_bytes=1500)

    outcomes = admitted(RequestLimits(max_waiting_bytes=4096), scenario)
    assert outcomes == [("flood", 200)] * 2 + [("flood", 429)] * 3 + [("other", 200)]


def test_what_is_computed_gives_way_last():
    """Large requests are begun with all over: if they gave way to nobody, a flood of them would fill the room."""

    async def scenario(_admission, ask):
        await ask("flood", 2, computing=True)
        await ask("flood")
        await ask("other")
        await ask("third")

    assert admitted(RequestLimits(max_waiting=3), scenario) == [
        ("flood", 200), ("flood", 429), ("flood", 429), ("other", 200), ("third", 200)
    ]  # fmt: skip


def test_an_end_is_told_to_who_waits_and_later_to_all():
    async def scenario(admission, ask):
        await ask("computed", computing=True)
        await ask("waits")
        admission.stop()
        await ask("late")
        await ask("late", 0)
        assert admission.stopping

    assert admitted(RequestLimits(), scenario) == [("computed", 200), ("late", 503), ("waits", 503)]


@pytest.mark.hardening("attacks", "A7", "One client's flood")
def test_a_flood_over_http_does_not_starve_another(embedder):
    """By address: 127.0.0.2 fills the room, then 127.0.0.1 comes; it gets in, and is computed with the next batch."""
    encoder = ConstantEncoder(embedder.preparer)
    encoder.go.clear()
    service = Service("tiny", encoder, RequestLimits(max_waiting=16), Batching(batch_tokens=64))
    statuses = []

    def flood(url):
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=60) as client:
            statuses.append(client.post("/v1/embeddings", json={"input": "flood"}).status_code)

    with in_thread(create_app(service)) as url, client_of(url) as client, ThreadPoolExecutor(21) as pool:
        floods = [pool.submit(flood, url) for _ in range(20)]
        until(lambda: statuses == [429] * 4)
        other = pool.submit(client.post, "/v1/embeddings", json={"input": "other"})
        until(lambda: statuses == [429] * 5)
        until(lambda: len(encoder.calls) == 1)  # the flood's first batch is computed; the rest waits
        encoder.go.set()
        assert other.result().status_code == 200, error_of(other.result())
        assert [future.exception() for future in floods] == [None] * 20
    assert statuses.count(200) == 15, "the flood has what the other leaves"
    assert "other" in encoder.calls[1], encoder.calls


def test_an_idle_model_waits_for_no_company():
    """What comes first is computed alone, at once; what comes meanwhile goes together."""
    calls, go = [], threading.Event()

    def encode(items, _instruction):
        calls.append(len(items))
        assert go.wait(10)
        return np.zeros((len(items), 1), np.float32)

    async def run():
        batcher = Batcher(encode, Batching(), lambda _: None)
        batcher.start()
        submitted = [asyncio.create_task(batcher.submit(Prepared([{"text": "first"}], None, [10])))]
        await asyncio.sleep(0.05)
        assert calls == [1]
        submitted += [asyncio.create_task(batcher.submit(Prepared([{"text": "x"}], None, [10]))) for _ in range(5)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*submitted)
        await batcher.stop()

    asyncio.run(run())
    assert calls == [1, 5]
