"""Synthesis against what it may cost: ``python benchmarks/bench_synthesis.py [--requests 100000]``.

1. The default step as a whole, all but the embedder: examples a second. Vectors are made beforehand.
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
from typing import Any

import faiss
import numpy as np
import psutil
import torch
from aiohttp import web
from numpy.typing import NDArray
from timing import interleaved_minimum

from atlas.build import build
from atlas.config import AtlasConfig
from gme_data.steps import StepContext
from gme_data.structured import read_json
from gme_embedder.frozen import MiniLM
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus import resources
from gme_synthesis.corpus.atlas import open_atlas
from gme_synthesis.corpus.atlas_config import AtlasSynthesisConfig
from gme_synthesis.corpus.run import synthesize
from gme_synthesis.corpus.store import Corpus
from gme_synthesis.encoders import TextEncoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.endpoint import Endpoint, EndpointConfig
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import CompletionRequest
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.stages import run_stage
from gme_synthesis.steps.consistency import ConsistencyStep
from gme_synthesis.steps.drafts import DraftStep
from gme_synthesis.steps.question import QuestionStep

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
        consistency(open_atlas(atlas))
        throughput(Path(folder))
        memory(Path(folder), arguments.requests)


class Remembering:
    """Encodes a text once; from then on what is measured around it is all but the embedder."""

    def __init__(self) -> None:
        self._encoder, self._known = MiniLM(), {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in texts if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def rule_based(atlas: Path, scratch: Path) -> None:
    """The whole step `synthesize` of the default run, files included, with known verdicts of the embedder."""
    encode = Remembering()
    resources.load_encoder = lambda *_: TextEncoder("remembering", encode, encode)

    def run() -> int:
        home = Path(tempfile.mkdtemp(dir=scratch))
        for folder in ("staging", "log"):
            (home / folder).mkdir()
        context = StepContext(home / "staging", "key", home / "log")
        synthesize(AtlasSynthesisConfig(), {"corpus": atlas}, context)
        steps = read_json(context.staging / "funnel.json", dict[str, Any])["steps"]
        return int(steps[-1]["seen"])

    made = run()
    (spent,) = interleaved_minimum([run], ROUNDS)
    print(f"by rules         {made} examples in {spent:.2f} CPU s: {made / spent:,.0f} examples/s", flush=True)


def consistency(corpus: Corpus) -> None:
    """The filter and the bare library on the same questions and passages."""
    encoder, passages = MiniLM(), list(corpus.passages())
    client = LLMClient(RuleWriter(wordings=corpus.wordings), None, attempts=1)
    drafts, _, _ = run_stage(DraftStep(1).stage(), passages)
    asked, _, _ = run_stage(QuestionStep(client).stage(), drafts[:1500])
    vectors = encoder.encode([passage.text for passage in passages])
    rows = {passage.id: row for row, passage in enumerate(passages)}
    judge = ConsistencyStep(rows, vectors, encoder.encode, top_k=20)
    texts = [one.question for one in asked]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def bare() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        found = encoder._model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return index.search(found, 20)

    hits = bare()[1]
    expected = sum(rows[one.id] in found for one, found in zip(asked, hits.tolist(), strict=True))
    assert sum(isinstance(one, Candidate) for one in judge.run(asked)) == expected
    theirs, ours = interleaved_minimum([bare, lambda: list(judge.run(asked))], ROUNDS)
    share = ours / theirs
    print(f"consistency      {ours:.2f} CPU s, bare encode and FAISS {theirs:.2f}: {share:.3f} of it", flush=True)


def throughput(folder: Path) -> None:
    """Seconds for 2,000 requests, journal included, against those that 64 in flight need at best."""
    count = 2_000
    with server(LATENCY) as url, asking(url, folder / "throughput") as client:
        client.ask(requests(IN_FLIGHT, "warm"))
        started, cpu = time.monotonic(), time.process_time()
        client.ask(requests(count, "measured"))
        spent, cpu = time.monotonic() - started, time.process_time() - cpu
    ideal = -(-count // IN_FLIGHT) * LATENCY
    print(f"client           {count / spent:.0f} requests/s of {count / ideal:.0f}: {ideal / spent:.3f}; "
          f"{1e3 * cpu / count:.2f} CPU ms each", flush=True)  # fmt: skip


def memory(folder: Path, count: int) -> None:
    """Resident memory of this process after a tenth and after all, asked shard by shard as synthesis does."""
    process = psutil.Process()
    with server(0) as url, asking(url, folder / "memory") as client:
        size, marks = 1000, []
        for start in range(0, count, size):
            client.ask(requests(size, f"shard {start}"))
            marks.append(process.memory_info().rss / 2**20)
    early, late = marks[max(0, len(marks) // 10 - 1)], marks[-1]
    print(f"memory           {early:.0f} MiB after {count // 10} requests, {late:.0f} after {count}", flush=True)


def requests(count: int, name: str) -> Sequence[CompletionRequest]:
    prompt = load_prompt("question")
    return [CompletionRequest(prompt, {"passage": f"{name} {number}"}) for number in range(count)]


@contextmanager
def asking(url: str, journal: Path) -> Iterator[LLMClient]:
    model = Endpoint(EndpointConfig(url=url, concurrency=IN_FLIGHT))
    kept = RequestJournal(journal)
    try:
        yield LLMClient(model, kept)
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
