"""Synthesis against what it may cost: ``python benchmarks/bench_synthesis.py [--requests 100000]``.

1. The default corpus by rules, every step but the embedder: examples a second. Vectors are made beforehand.
2. The consistency filter against the bare encode of sentence-transformers and a search by FAISS, of the same texts.
3. The client of language models against a server that answers after 200 ms, 64 in flight: share of the ideal rate.
4. Its memory over many requests to a server that answers at once: growth of the process after a first tenth.

CPU seconds of this process for 1 and 2, the least of interleaved rounds; wall time for 3, where waiting is the work.
The server is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path

import faiss
import numpy as np
import psutil
import torch
from aiohttp import web
from numpy.typing import NDArray
from timing import interleaved_minimum

from atlas.build import build
from atlas.config import AtlasConfig
from gme_data.examples import read_examples
from gme_data.images import ImageStore
from gme_embedder.frozen import MiniLM
from gme_synthesis.config import SynthesisConfig
from gme_synthesis.consistency import ConsistencyFilter
from gme_synthesis.decontamination import benchmark_queries
from gme_synthesis.llm.asking import Asker
from gme_synthesis.llm.endpoint import Endpoint, EndpointConfig
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import Request
from gme_synthesis.records import Draft
from gme_synthesis.step import build_stages, collect, run_shard
from gme_synthesis.world import World, read_world
from gme_synthesis.writer import TemplateWriter, write_questions

ROUNDS = 3
IN_FLIGHT, LATENCY = 64, 0.2
ANSWER = '{"question": "What is the capital of Norway?", "answer": "Oslo"}'


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="how many to measure memory over")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        atlas = Path(folder) / "atlas"
        build(AtlasConfig(), atlas)
        rule_based(atlas, Path(folder))
        consistency(read_world(atlas))
        throughput(Path(folder))
        memory(Path(folder), arguments.requests)


def rule_based(atlas: Path, scratch: Path) -> None:
    """Every step of the default synthesis with known verdicts of the embedder."""
    config = SynthesisConfig()
    world, store = read_world(atlas), ImageStore([atlas / "images"])
    writer = TemplateWriter(world.templates, config.wordings_per_fact, config.seed)
    facts = [world.facts[id_] for id_ in sorted(world.facts)]
    native, benchmark = read_examples(atlas / "examples" / "train"), benchmark_queries(atlas / "tasks")
    stages = build_stages(config, world, store, scratch)
    encoder = MiniLM()
    drafts = [one for one in write_questions(facts, world.passages, world.places, writer) if isinstance(one, Draft)]
    judged = [one.question for one in drafts if one.wording < config.judged_per_fact]
    known = dict(zip(judged, encoder.encode(judged), strict=True))
    passages = [world.passages[id_] for id_ in sorted(world.passages)]
    vectors = encoder.encode([passage.text for passage in passages])

    def run() -> int:
        judge = ConsistencyFilter(
            passages,
            vectors,
            world.facts,
            lambda texts: np.stack([known[text] for text in texts]),
            top_k=config.consistency_top_k,
            judged_per_fact=config.judged_per_fact,
        )
        first = type(stages[0])(stages[0].name, stages[0].reads, stages[0].writes, judge.run)
        shard = run_shard(facts, world, writer, [first, *stages[1:]])
        made, rejects, _ = collect(config, world, [shard], native, benchmark)
        return len(made) + sum(reject.step == "balance" for reject in rejects)

    made = run()
    (spent,) = interleaved_minimum([run], ROUNDS)
    print(f"by rules         {made} examples in {spent:.2f} CPU s: {made / spent:,.0f} examples/s", flush=True)


def consistency(world: World) -> None:
    """The filter and the bare library on the same questions and passages."""
    config, encoder = SynthesisConfig(judged_per_fact=1), MiniLM()
    writer = TemplateWriter(world.templates, 1, config.seed)
    facts = [world.facts[id_] for id_ in sorted(world.facts)][:1500]
    drafts = [one for one in write_questions(facts, world.passages, world.places, writer) if isinstance(one, Draft)]
    passages = [world.passages[id_] for id_ in sorted(world.passages)]
    vectors = encoder.encode([passage.text for passage in passages])
    judge = ConsistencyFilter(passages, vectors, world.facts, encoder.encode, top_k=20, judged_per_fact=1)
    texts = [draft.question for draft in drafts]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def bare() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        found = encoder._model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return index.search(found, 20)

    rows = {passage.id: row for row, passage in enumerate(passages)}
    hits = bare()[1]
    own = [rows[world.facts[draft.fact_id].passage_id] for draft in drafts]
    expected = sum(row in found for row, found in zip(own, hits.tolist(), strict=True))
    assert sum(isinstance(one, Draft) for one in judge.run(drafts)) == expected
    theirs, ours = interleaved_minimum([bare, lambda: list(judge.run(drafts))], ROUNDS)
    share = ours / theirs
    print(f"consistency      {ours:.2f} CPU s, bare encode and FAISS {theirs:.2f}: {share:.3f} of it", flush=True)


def throughput(folder: Path) -> None:
    """Seconds for 2,000 requests, journal included, against those that 64 in flight need at best."""
    count = 2_000
    with server(LATENCY) as url, asking(url, folder / "throughput") as asker:
        asker.ask(requests(IN_FLIGHT, "warm"))
        started, cpu = time.monotonic(), time.process_time()
        asker.ask(requests(count, "measured"))
        spent, cpu = time.monotonic() - started, time.process_time() - cpu
    ideal = -(-count // IN_FLIGHT) * LATENCY
    print(f"client           {count / spent:.0f} requests/s of {count / ideal:.0f}: {ideal / spent:.3f}; "
          f"{1e3 * cpu / count:.2f} CPU ms each", flush=True)  # fmt: skip


def memory(folder: Path, count: int) -> None:
    """Resident memory of this process after a tenth and after all, asked shard by shard as synthesis does."""
    process = psutil.Process()
    with server(0) as url, asking(url, folder / "memory") as asker:
        size, marks = 1000, []
        for start in range(0, count, size):
            asker.ask(requests(size, f"shard {start}"))
            marks.append(process.memory_info().rss / 2**20)
    early, late = marks[max(0, len(marks) // 10 - 1)], marks[-1]
    print(f"memory           {early:.0f} MiB after {count // 10} requests, {late:.0f} after {count}", flush=True)


def requests(count: int, name: str) -> Sequence[Request]:
    prompt = load_prompt("question")
    return [Request(prompt, {"passage": f"{name} {number}"}) for number in range(count)]


@contextmanager
def asking(url: str, journal: Path) -> Iterator[Asker]:
    model = Endpoint(EndpointConfig(url=url, concurrency=IN_FLIGHT))
    kept = RequestJournal(journal)
    try:
        yield Asker(model, kept)
    finally:
        model.close()
        kept.close()


@contextmanager
def server(latency: float) -> Iterator[str]:
    """A process that answers after `latency` seconds."""
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=_serve, args=(latency, ready), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.get(timeout=60)}/v1"
    finally:
        process.terminate()
        process.join()


def _serve(latency: float, ready: Queue[int]) -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(latency)
        return web.json_response({"choices": [{"message": {"content": ANSWER}}], "usage": {}})

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    main()
