"""A training step against its peers: ``python benchmarks/bench_training.py``.

A random Qwen2-VL (256 wide, 4 layers) learns to tell pairs apart: from texts and files to InfoNCE over the whole batch,
its gradients, and an AdamW (fused) update of the language part without its token table. On one thread, on the same
token ids in the prompt of GME:

* texts: 128 pairs of a short query and a passage, by the losses of sentence-transformers (on the same language part as
  a Qwen2, its chat template switched off), by a gradient cache as VLM2Vec does it, and by ours;
* pictures: 32 text queries and JPEG files of UMRB's sizes, every other one with a caption, the tower frozen, by
  VLM2Vec's way and by ours.

VLM2Vec's way: each side padded to its longest, chunks of 8 through transformers' modules with a mask, the tower among
them, all of it twice. Ours once with the gradient cache (every micro-batch is encoded twice) and once with all graphs
kept. In float32 and, beside it, with the vectors computed under autocast to bfloat16 on all sides.

The loss and the gradients at the first step must agree before a ratio is printed; in bfloat16 each way rounds
elsewhere, so each is held to the first one's in float32. CPU seconds, the least of interleaved rounds, each on a batch
of its own. Tokens count as often as the language part computes them.

Memory: how far the anonymous part of a process that does one step of ours with the gradient cache rises above its
start, for growing batches, with the larger micro-batches of the above and with the smaller; once with an allocator that
gives back what is freed, which shows what the step holds, and once as glibc is by default, with its fragments.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_encode import sentence_transformer, texts
from bench_pictures import jpegs
from bench_search import resident
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from stock import Stock, fetched, random_embedder
from timing import interleaved_minimum
from torch import Tensor, nn
from torch.nn import functional

from gme_data.environment import set_default_env
from gme_embedder.embedder import Embedder, batches_by_tokens
from gme_embedder.processing.batch import pack
from gme_embedder.processing.prompt import PAD, prompt
from gme_training.config import LossConfig
from gme_training.losses.gradient_cache import cached_gradients
from gme_training.losses.info_nce import contrastive_loss
from gme_training.losses.pairing import Pairing

TEMPERATURE = 0.03
RATE = 1e-5
CHUNK = 8
"""Items at once in VLM2Vec's way."""
PEER_BUDGET, PEER_BUDGET_HALF = 512, 1024
"""Tokens at once in sentence-transformers' cache (`mini_batch_num_tokens`); of 512 to 8,192 the fastest in float32."""
BUDGET, BUDGET_HALF = 2048, 8192
"""Tokens at once in ours; of 1,024 to 8,192 the fastest here."""
EVERYTHING = 2**40
EXACT, HALF = (5e-5, 1e-4), (2e-2, 5e-2)
"""How far losses may differ, and gradients in proportion to their norm."""
BATCHES = (128, 512, 2048)
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Makes glibc return what is freed, so that only what a step holds at a time counts."""

Item = dict[str, Any]
Encode = Callable[..., Any]


@dataclass(frozen=True)
class Pairs:
    """Query i and document i belong together."""

    queries: Sequence[Item]
    documents: Sequence[Item]

    def picked(self, rows: Sequence[int]) -> Pairs:
        return Pairs([self.queries[row] for row in rows], [self.documents[row] for row in rows])


class Learner:
    """The language part of one way, and its optimizer.

    `gradients` leaves them in `Parameter.grad` and gives the loss.
    """

    def __init__(self, language: nn.Module, gradients: Callable[[Pairs], Tensor]) -> None:
        self.language, self.gradients = language, gradients
        self.parameters = trained(language)
        self._optimizer = torch.optim.AdamW(self.parameters, lr=RATE, fused=True)

    def step(self, pairs: Pairs) -> None:
        self.gradients(pairs)
        self._optimizer.step()
        self._optimizer.zero_grad()


Make = Callable[..., Learner]
"""With `half`: in bfloat16 or not."""
GRADIENT_CACHE, ALL_GRAPHS = "ours, gradient cache", "ours, all graphs kept"
Peers = Mapping[str, tuple[Make, str]]
"""How a peer is made, and which of our ways does the same: encodes twice, or keeps all graphs."""


def main() -> None:
    """Print a table for each workload."""
    set_default_env()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("texts", "pictures", "memory"))
    parser.add_argument("--peak", type=int, nargs=2, metavar=("PAIRS", "TOKENS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(*options.peak)
        return
    if options.only in {None, "texts"}:
        compare_texts(128, options.rounds)
    if options.only in {None, "pictures"}:
        compare_pictures(32, options.rounds)
    if options.only in {None, "memory"}:
        compare_memory()


def compare_texts(count: int, rounds: int) -> None:
    peers: Peers = {
        "CachedMultipleNegativesRankingLoss": (partial(sentence_transformers, cached=True), GRADIENT_CACHE),
        "MultipleNegativesRankingLoss": (partial(sentence_transformers, cached=False), ALL_GRAPHS),
    }
    compare("texts", dealt(text_pairs(count * (1 + 2 * rounds)), count), peers)


def compare_pictures(count: int, rounds: int) -> None:
    pool = count * (1 + 2 * rounds)
    captions = texts(pool, 12, 0.4)
    # The same sizes in every batch: one large picture decides how much the others are padded.
    documents: list[Item] = [{"image": file} for file in jpegs(count) * (1 + 2 * rounds)]
    for row in range(0, pool, 2):
        documents[row]["text"] = captions[row]
    compare("texts and pictures", dealt(Pairs(text_pairs(pool).queries, documents), count), {})


def text_pairs(count: int) -> Pairs:
    """Questions of about 12 words and passages of about 77, beside the prompt."""
    return Pairs(*([{"text": text} for text in texts(count, *shape)] for shape in ((10, 0.4), (69, 0.42))))


def dealt(pool: Pairs, count: int) -> list[Pairs]:
    """Batches of `count` pairs whose documents are about as long, though no two batches have the same lengths."""
    lengths = token_counts(pool.documents)
    rows, batches = sorted(range(len(lengths)), key=lengths.__getitem__), len(lengths) // count
    return [pool.picked(sorted(rows[start::batches])) for start in range(batches)]


def token_counts(items: Sequence[Item]) -> list[int]:
    return [len(item.ids) for item in random_embedder().preparer.tokenise(items)]


def compare(name: str, batches: Sequence[Pairs], peers: Peers) -> None:
    """Check on one batch, measure on the others, print: each peer beside that of our ways which does the same.

    Every step has a batch of its own, as in training: in bfloat16 torch compiles a kernel for each shape it has not met
    lately. Ours with all kept gets the odd batches, lest it find the kernels of the gradient cache.
    """
    peers = {**peers, "VLM2Vec's way": (vlm2vec, GRADIENT_CACHE)}
    ways: dict[str, Make] = {
        **{peer: make for peer, (make, _) in peers.items()},
        GRADIENT_CACHE: partial(ours, retained_bytes=0),
        ALL_GRAPHS: partial(ours, retained_bytes=EVERYTHING),
    }
    rounds = len(batches) // 2
    middle, others = batches[rounds], [*batches[:rounds], *batches[rounds + 1 :]]
    learners = {half: [make(half=half) for make in ways.values()] for half in (False, True)}
    computed = check(dict(zip(ways, zip(*learners.values(), strict=True), strict=True)), middle)
    queries, documents = (token_counts(side) for side in (middle.queries, middle.documents))
    real = sum(queries) + sum(documents)
    print(f"{len(queries)} pairs of {name}: {real} tokens; queries {spread(queries)}, documents {spread(documents)}")
    halves = [others[::2]] * (len(ways) - 1) + [others[1::2]]
    steps = [
        steps_of(learner, half) for column in learners.values() for learner, half in zip(column, halves, strict=True)
    ]
    seconds = iter(interleaved_minimum(steps, rounds))
    table = [[next(seconds) for _ in ways] for _ in learners]
    print(f"{'CPU seconds a step, and times those of ours that does the same:':>68}  {'float32':^16}  {'bfloat16':^16}")
    for row, way in enumerate(ways):
        line = f"  {way:<36} computed / real {computed[row] / real:5.2f}         "
        same = list(ways).index(peers[way][1]) if way in peers else row
        for column in table:
            line += f"  {column[row]:7.2f} {column[row] / column[same]:6.2f}x "
        print(line, flush=True)


def steps_of(learner: Learner, batches: Sequence[Pairs]) -> Callable[[], None]:
    """Each call is a step on the next batch."""
    following = iter(batches)
    return lambda: learner.step(next(following))


def spread(lengths: Sequence[int]) -> str:
    return f"{sum(lengths) / len(lengths):.0f} on average, {max(lengths)} at most"


def check(ways: dict[str, Sequence[Learner]], pairs: Pairs) -> list[int]:
    """Equal losses and gradients at the first step of each way, in both precisions; the tokens each computes."""
    computed = []
    true = None
    for name, (plain, half) in ways.items():
        with counted(plain.language.layers[0].self_attn.k_proj) as tokens:
            found = measured(plain, pairs)
        computed.append(sum(tokens))
        true = true or found
        assert_near(name, found, true, EXACT)
        assert_near(f"{name}, bfloat16", measured(half, pairs), true, HALF)
    return computed


def measured(learner: Learner, pairs: Pairs) -> tuple[float, Tensor]:
    """The loss, and the gradients of all parameters end to end."""
    loss = float(learner.gradients(pairs))
    named = sorted(learner.language.named_parameters())
    gradients = torch.cat([parameter.grad.flatten() for _, parameter in named if parameter.requires_grad])
    for parameter in learner.parameters:
        parameter.grad = None
    return loss, gradients


def assert_near(
    name: str, found: tuple[float, Tensor], true: tuple[float, Tensor], tolerance: tuple[float, float]
) -> None:
    loss, gradient = abs(found[0] - true[0]), float((found[1] - true[1]).norm() / true[1].norm())
    assert loss < tolerance[0], f"{name}: loss {found[0]} instead of {true[0]}"
    assert gradient < tolerance[1], f"{name}: the gradient is off by {gradient:.2g} of its norm"


@contextmanager
def counted(linear: nn.Module) -> Iterator[list[int]]:
    """Within it, the rows that go through a linear layer are noted."""
    rows: list[int] = []
    hook = linear.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].numel() // inputs[0].shape[-1]))
    try:
        yield rows
    finally:
        hook.remove()


def sentence_transformers(*, half: bool, cached: bool) -> Learner:
    with tempfile.TemporaryDirectory() as folder:
        embedder = random_embedder()
        peer = sentence_transformer(embedder, Path(folder))
    # As accelerate does for its trainer, so that the second forward of the cache is in half precision too.
    peer.forward = precision(peer.forward, half)
    scale = 1 / TEMPERATURE
    loss = (
        CachedMultipleNegativesRankingLoss(
            peer, scale=scale, mini_batch_num_tokens=PEER_BUDGET_HALF if half else PEER_BUDGET
        )
        if cached
        else MultipleNegativesRankingLoss(peer, scale=scale)
    )

    def gradients(pairs: Pairs) -> Tensor:
        sides = [prompts(embedder, items) for items in (pairs.queries, pairs.documents)]
        value = loss([peer.preprocess(side) for side in sides], None)
        value.backward()
        return value.detach()

    return Learner(peer[0].auto_model, gradients)


def vlm2vec(*, half: bool) -> Learner:
    embedder = random_embedder()
    embedder.model.qwen.visual.requires_grad_(False)
    encode = precision(chunk_vectors, half)

    def gradients(pairs: Pairs) -> Tensor:
        sides = (collated(embedder, items) for items in (pairs.queries, pairs.documents))
        chunks = [side.rows(start, start + CHUNK) for side in sides for start in range(0, len(side.ids), CHUNK)]
        with torch.no_grad():
            vectors = torch.cat([encode(embedder, chunk) for chunk in chunks]).requires_grad_()
        loss = info_nce(vectors)
        loss.backward()
        for chunk, cached in zip(chunks, vectors.grad.split([len(chunk.ids) for chunk in chunks]), strict=True):
            torch.dot(encode(embedder, chunk).flatten(), cached.flatten()).backward()
        return loss.detach()

    return Learner(embedder.model.language, gradients)


@dataclass(frozen=True)
class Padded:
    """What VLM2Vec's collator makes of items: ids and mask [n, L], and each picture's patches and grid [1, 3]."""

    ids: Tensor
    mask: Tensor
    patches: Sequence[Tensor]
    grids: Sequence[Tensor]

    def rows(self, start: int, stop: int) -> Padded:
        pictures = slice(start, stop) if self.patches else slice(0)
        return Padded(self.ids[start:stop], self.mask[start:stop], self.patches[pictures], self.grids[pictures])


def collated(embedder: Embedder, items: Sequence[Item]) -> Padded:
    """All of the items have a picture, or none has."""
    processor = Stock(embedder).processor()
    pictures = [
        processor(images=[fetched(item["image"])], return_tensors="pt") if "image" in item else None for item in items
    ]
    made = [picture for picture in pictures if picture]
    filled = [
        text.replace(PAD, PAD * (int(picture["image_grid_thw"].prod()) // 4)) if picture else text
        for text, picture in zip(prompts(embedder, items), pictures, strict=True)
    ]
    rows = [torch.tensor(one.ids) for one in embedder.preparer.tokenizer.encode_batch(filled)]
    ids, mask = (
        nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (rows, [torch.ones_like(row) for row in rows])
    )
    return Padded(ids, mask, [one["pixel_values"] for one in made], [one["image_grid_thw"] for one in made])


def chunk_vectors(embedder: Embedder, chunk: Padded) -> Tensor:
    """Unit vectors [n, d] of the last tokens, by transformers' own modules."""
    language = embedder.model.language
    embeds = language.embed_tokens(chunk.ids)
    if chunk.patches:
        visual = embedder.model.qwen.visual(torch.cat(chunk.patches), torch.cat(chunk.grids)).pooler_output
        place = chunk.ids == embedder.preparer.tokenizer.token_to_id(PAD)
        embeds = embeds.masked_scatter(place[..., None], visual.to(embeds.dtype))
    positions = torch.arange(chunk.ids.shape[1]).expand(3, *chunk.ids.shape)
    states = language(inputs_embeds=embeds, attention_mask=chunk.mask, position_ids=positions, use_cache=False)
    last = states.last_hidden_state[torch.arange(len(chunk.ids)), chunk.mask.sum(1) - 1]
    return functional.normalize(last.float(), dim=-1)


def ours(*, half: bool, retained_bytes: int, budget: int | None = None) -> Learner:
    embedder = random_embedder()
    model = embedder.model
    model.qwen.visual.requires_grad_(False)
    parameters = trained(model.language)
    budget = budget or (BUDGET_HALF if half else BUDGET)
    encode, with_visual = precision(model.embed, half), precision(model.with_visual_tokens, half)

    def gradients(pairs: Pairs) -> Tensor:
        tokenised = embedder.preparer.tokenise([*pairs.queries, *pairs.documents])
        parts = list(batches_by_tokens(tokenised, budget))
        batches = [with_visual(pack([tokenised[row] for row in part], "sequential")) for part in parts]
        place = torch.tensor([row for part in parts for row in part]).argsort()  # of each item among the vectors
        loss, found = cached_gradients(
            encode,
            batches,
            lambda vectors: in_tiles(vectors[place]),
            parameters,
            retained_bytes=retained_bytes,
            frozen=list(model.parameters()),
        )
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
        return loss

    return Learner(model.language, gradients)


def info_nce(vectors: Tensor) -> Tensor:
    """Of queries and then documents, [2 n, d]."""
    queries, documents = vectors.chunk(2)
    return functional.cross_entropy(queries @ documents.T / TEMPERATURE, torch.arange(len(queries)))


def in_tiles(vectors: Tensor) -> Tensor:
    """The same by the project's loss, which never holds all products."""
    queries, documents = vectors.chunk(2)
    rows = torch.arange(len(queries))
    pairing = Pairing(rows, torch.zeros(0, 2, dtype=torch.long), torch.stack([rows, rows], dim=1), len(rows))
    parts = contrastive_loss(queries, documents, pairing, LossConfig(), torch.tensor(1 / TEMPERATURE), rows)
    return parts.loss / len(rows)


def prompts(embedder: Embedder, items: Sequence[Item]) -> list[str]:
    system = embedder.settings.inputs.default_instruction
    return [prompt(system, item.get("text"), picture="image" in item) for item in items]


def trained(language: nn.Module) -> list[nn.Parameter]:
    """Its parameters but for the token table, which is frozen here."""
    language.embed_tokens.requires_grad_(False)
    return [parameter for parameter in language.parameters() if parameter.requires_grad]


def precision(function: Encode, half: bool) -> Encode:
    return torch.autocast("cpu", torch.bfloat16, enabled=half)(function)


def compare_memory() -> None:
    print("peak memory of a step of ours with the gradient cache, beyond what there was before it")
    for name, environment in (("given back at once", GIVEN_BACK), ("kept by the allocator", {})):
        for budget in (BUDGET_HALF, BUDGET):
            first = None
            for count in BATCHES:
                peak = peak_of(count, budget, environment)
                first = first or peak
                more = f"{100 * (peak / first - 1):+.1f} %"
                print(f"  {name:<22} {budget:5} tokens at once {count:5} pairs {peak:7.0f} MiB {more:>8}", flush=True)


def peak_of(count: int, budget: int, environment: Mapping[str, str]) -> float:
    """What `print_peak` prints in a process of its own."""
    command = [sys.executable, __file__, "--peak", str(count), str(budget)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return float(printed.stdout)


def print_peak(count: int, budget: int) -> None:
    """Anonymous MiB that a step adds."""
    learner, pairs = ours(half=False, retained_bytes=0, budget=budget), text_pairs(count)
    start, done = resident()[0], threading.Event()
    highest = start

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, resident()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    learner.step(pairs)
    done.set()
    watcher.join()
    print((highest - start) / 2**10)


if __name__ == "__main__":
    main()
