"""What waits together is computed together, within the budget; a failure stays with its request; nothing is lost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gme_serve.batcher import Batcher, compute
from gme_serve.config import Batching
from gme_serve.prepare import Prepared


def request(*texts: str, instruction: str | None = None, tokens: int = 10) -> Prepared:
    return Prepared([{"text": text} for text in texts], instruction, tokens)


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
        batcher = Batcher(encoder, Batching(batch_tokens=25, wait_ms=1), tokens.append)
        batcher.start()
        asked = [request(str(n), tokens=60 if n == 3 else 10) for n in range(6)]
        answers = await asyncio.gather(*(batcher.submit(one) for one in asked))
        await batcher.stop()
        return answers

    assert len(asyncio.run(run())) == 6
    assert [texts for texts, _ in encoder.calls] == [["0", "1"], ["2"], ["3"], ["4", "5"]]
    assert tokens == [20, 10, 60, 20]


def test_stopping_answers_what_waits():
    async def run():
        batcher = Batcher(Encoder(), Batching(batch_tokens=1, wait_ms=0), lambda _: None)
        batcher.start()
        waiting = [asyncio.create_task(batcher.submit(request("x" * n))) for n in range(5)]
        await asyncio.sleep(0)
        await batcher.stop()
        assert not batcher.alive
        return [answer.item() for answer in await asyncio.gather(*waiting)]

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


def test_a_client_that_went_away_costs_nobody_else():
    async def run():
        batcher = Batcher(Encoder(), Batching(wait_ms=20), lambda _: None)
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
