"""Texts to vectors against two peers: ``python benchmarks/bench_encode.py``.

A random Qwen2-VL (256 wide, 4 layers) embeds 1,000 documents, and 256 short queries with an instruction, in the prompt
of GME, by three ways on the same token ids, on one thread:

* as the GME wrapper of mteb does (stock.py);
* `SentenceTransformer.encode` (sorts by length) on the same language part as a Qwen2, its chat template switched off;
* `Embedder.encode`.

Each in float32 and in bfloat16. The vectors must agree before a ratio is printed: to 1e-5 in float32; in bfloat16 each
way rounds elsewhere, so each is held to the float32 vectors. CPU seconds, the least of interleaved rounds.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from stock import SHAPE, Stock, random_embedder
from timing import interleaved_minimum
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from gme_data.environment import set_default_env
from gme_embedder.embedder import Embedder, batches_by_tokens
from gme_embedder.processing.batch import pack
from gme_embedder.processing.prompt import END, prompt

ROUNDS = 3
TOLERANCE = 1e-5
COSINE = 0.998
WORDS = ("river", "capital", "flag", "country", "red", "blue", "mountain", "people", "economy", "border", "island")
QUESTION = "Given a question about a place of the world, retrieve the passages that answer the question best of all."
Encode = Callable[[], NDArray[np.float32]]


def main() -> None:
    """Print a table for each workload."""
    set_default_env()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=256)
    sizes = parser.parse_args()
    exact = random_embedder()
    for dtype in ("float32", "bfloat16"):
        embedder = random_embedder(dtype)
        with tempfile.TemporaryDirectory() as folder:
            peer = sentence_transformer(embedder, Path(folder))
            documents, queries = texts(sizes.documents, 60, 0.6), texts(sizes.queries, 6, 0.4)
            compare(f"{sizes.documents} documents, {dtype}", embedder, peer, exact, documents, None)
            compare(f"{sizes.queries} queries with an instruction, {dtype}", embedder, peer, exact, queries, QUESTION)


def compare(
    name: str, embedder: Embedder, peer: SentenceTransformer, exact: Embedder, items: list[str], instruction: str | None
) -> None:
    """Check, measure, print."""
    system = instruction or embedder.settings.inputs.default_instruction
    prompts = [prompt(system, text, picture=False) for text in items]
    stock = Stock(embedder)
    ways: dict[str, Encode] = {
        "mteb's GME wrapper": lambda: stock.texts(items, instruction),
        "SentenceTransformer": lambda: peer.encode(prompts, batch_size=32, show_progress_bar=False),
        "Embedder": lambda: embedder.encode(items, instruction),
    }
    true = exact.encode(items, instruction)
    for other, encode in ways.items():
        check(other, encode(), true, half=next(embedder.model.parameters()).dtype != torch.float32)
    real, computed = tokens(embedder, items, instruction)
    print(f"{name}: {real} tokens, computed / real {computed / real:.2f}")
    seconds = interleaved_minimum(list(ways.values()), ROUNDS)
    for other, spent in zip(ways, seconds, strict=True):
        speed = len(items) / spent
        print(f"  {other:<20} {spent:7.2f} CPU s {speed:8.0f} texts/s   ours is {spent / seconds[-1]:.2f}x as fast")


def check(name: str, vectors: NDArray[np.float32], true: NDArray[np.float32], *, half: bool) -> None:
    """Equal vectors, or in half precision about the same directions."""
    difference, cosine = float(np.abs(vectors - true).max()), float((vectors * true).sum(1).min())
    assert cosine > COSINE if half else difference < TOLERANCE, f"{name} differs by {difference}, cosine {cosine}"


def sentence_transformer(embedder: Embedder, folder: Path) -> SentenceTransformer:
    """The language part as a Qwen2 (the same function, for equal positions on all axes), last token, normalised."""
    tokenizer = embedder.preparer.tokenizer
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = Qwen2Config(**SHAPE, vocab_size=tokenizer.get_vocab_size(), rope_parameters=rope, use_cache=False)
    model = Qwen2Model(config).to(next(embedder.model.parameters()).dtype)
    model.load_state_dict(embedder.model.language.state_dict())
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, padding_side="right").save_pretrained(folder)
    body = Transformer(str(folder), max_seq_length=1800, model_kwargs={"dtype": model.dtype})
    body.tokenizer.chat_template = None
    return SentenceTransformer(
        modules=[body, Pooling(SHAPE["hidden_size"], pooling_mode="lasttoken"), Normalize()], device="cpu"
    )


def texts(count: int, median: int, spread: float) -> list[str]:
    """Word counts log-normal, as those of passages and questions are; from a fixed seed."""
    draw = random.Random(0)  # noqa: S311
    return [
        " ".join(draw.choices(WORDS, k=1 + int(draw.lognormvariate(math.log(median), spread)))) for _ in range(count)
    ]


def tokens(embedder: Embedder, items: list[str], instruction: str | None) -> tuple[int, int]:
    """Tokens of all prompts, and tokens that the packed forward computes."""
    tokenised = embedder.preparer.tokenise(items, instruction)
    batches = batches_by_tokens(tokenised, embedder.batch_tokens)
    computed = sum(len(pack([tokenised[row] for row in rows], "sequential").tokens) for rows in batches)
    return sum(len(item.ids) for item in tokenised), computed


if __name__ == "__main__":
    main()
