"""What waits together is computed together, within the budget; a failure stays with its request; nothing is lost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gme_serve.batcher import Batcher, compute
from gme_serve.config import Batching
from gme_serve.items import Prepared


def request(*texts: str, instruction: str | None = None, tokens: int = 10) -> Prepared:
    return Prepared([{"text": text} for text in texts], instruction, [tokens] * len(texts))


class Encoder:
    """Lengths of texts in place of vectors; notes its calls, and fails at the text `bad`."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str | None]] = []

    def __call__(self, items, instruction):
        texts = [item["text"] for item in items]
        self.calls.append((texts, instruction))
        if "bad" in texts:
            raise RuntimeError("out of memory")
        return np.asarray([[len(text)] for text in texts], dtype=np.float32)


def test_requests_of_one_instruction_go_together_and_come_back_in_order():
    encoder = Encoder()
    results = compute(encoder, [request("a", "bb"), request("ccc", instruction="I"), request("dddd")])
    assert [result.ravel().tolist() for result in results] == [[1, 2], [3], [4]]
    assert encoder.calls == [(["a", "bb", "dddd"], None), (["ccc"], "I")]


def test_a_failure_stays_with_its_request():
    results = compute(Encoder(), [request("a"), request("bad", "b"), request("ccc")])
    assert isinstance(results[1], RuntimeError)
    assert [results[place].ravel().tolist() for place in (0, 2)] == [[1], [3]]


def test_batches_keep_to_the_budget_and_the_order_of_arrival():
    encoder, tokens = Encoder(), []

    async def run():
        batcher = Batcher(encoder, Batching(batch_tokens=25), tokens.append)
        batcher.start()
        requests = [request(str(n), tokens=60 if n == 3 else 10) for n in range(6)]
        answers = await asyncio.gather(*(batcher.submit(item) for item in requests))
        await batcher.stop()
        return answers

    assert len(asyncio.run(run())) == 6
    assert [texts for texts, _ in encoder.calls] == [["0", "1"], ["2"], ["3"], ["4", "5"]]
    assert tokens == [20, 10, 60, 20]


def test_stopping_answers_what_waits():
    async def run():
        batcher = Batcher(Encoder(), Batching(batch_tokens=1), lambda _: None)
        batcher.start()
        waiting = [asyncio.create_task(batcher.submit(request("x" * n))) for n in range(5)]
        await asyncio.sleep(0)
        await batcher.stop()
        assert not batcher.alive
        return [answer.item() for answer in await asyncio.gather(*waiting)]

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


def test_a_client_that_went_away_costs_nobody_else():
    async def run():
        batcher = Batcher(Encoder(), Batching(), lambda _: None)
        batcher.start()
        gone, other = (asyncio.create_task(batcher.submit(request(text))) for text in ("gone", "here"))
        await asyncio.sleep(0)
        gone.cancel()
        answer = await other
        with pytest.raises(asyncio.CancelledError):
            await gone
        await batcher.stop()
        return answer.item()

    assert asyncio.run(run()) == 4


def test_a_large_request_takes_turns_with_small_ones():
    encoder, tokens = Encoder(), []

    async def run():
        batcher = Batcher(encoder, Batching(batch_tokens=40), tokens.append)
        batcher.start()
        large = asyncio.create_task(batcher.submit(request(*("x" * n for n in range(1, 13)))))
        small = [asyncio.create_task(batcher.submit(request(text))) for text in ("one", "two")]
        await asyncio.sleep(0)
        assert (len(batcher), batcher.tokens) == (3, 140)
        await asyncio.wait([*small, large], return_when=asyncio.FIRST_COMPLETED)
        assert not large.done()
        answers = [(await answer).ravel().tolist() for answer in (large, *small)]
        await batcher.stop()
        assert (len(batcher), batcher.tokens) == (0, 0)
        return answers

    assert asyncio.run(run()) == [list(range(1, 13)), [3], [3]]
    assert tokens == [40, 40, 40, 20]
    assert [texts for texts, _ in encoder.calls][1] == ["one", "two", "xxxxx", "xxxxxx"]


def test_a_request_that_fits_into_a_batch_is_never_parted():
    encoder = Encoder()

    async def run():
        batcher = Batcher(encoder, Batching(batch_tokens=50), lambda _: None)
        batcher.start()
        await asyncio.gather(*(batcher.submit(request("a" * n, "b", "c")) for n in range(1, 4)))
        await batcher.stop()

    asyncio.run(run())
    assert [len(texts) for texts, _ in encoder.calls] == [3, 3, 3]


def test_a_part_that_fails_ends_its_request_and_no_other():
    encoder = Encoder()

    async def run():
        batcher = Batcher(encoder, Batching(batch_tokens=20), lambda _: None)
        batcher.start()
        bad, other = (asyncio.create_task(batcher.submit(item)) for item in (
            request("a", "bad", "c", "d", "e", "f"), request("x", "y", "z")
        ))  # fmt: skip
        with pytest.raises(RuntimeError, match="out of memory"):
            await bad
        answer = await other
        await batcher.stop()
        return answer.ravel().tolist()

    assert asyncio.run(run()) == [1, 1, 1]
    assert not any("e" in texts for texts, _ in encoder.calls), "nothing more is computed for it"


def test_an_item_larger_than_a_batch_goes_alone():
    encoder = Encoder()

    async def run():
        batcher = Batcher(encoder, Batching(batch_tokens=25), lambda _: None)
        batcher.start()
        large = Prepared([{"text": text} for text in ("a", "bb", "ccc")], None, [10, 60, 10])
        answers = await asyncio.gather(batcher.submit(large), batcher.submit(request("dddd")))
        await batcher.stop()
        return [answer.ravel().tolist() for answer in answers]

    assert asyncio.run(run()) == [[1, 2, 3], [4]]
    assert sorted(len(texts) for texts, _ in encoder.calls) == [1, 1, 2]
