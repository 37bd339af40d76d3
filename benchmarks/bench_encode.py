"""Texts to vectors against two peers: ``python benchmarks/bench_encode.py``.

A random Qwen2-VL (256 wide, 4 layers) embeds 1,000 documents, and 256 short queries with an instruction, in the prompt
of GME, by three ways on the same token ids, on one thread:

* as the GME wrapper of mteb does: batches of 32 in the order of the data, right padding, attention mask;
* `SentenceTransformer.encode` (sorts by length) on the same language part as a Qwen2, its chat template switched off;
* `Embedder.encode`.

The vectors must agree before a ratio is printed. CPU seconds, the least of interleaved rounds.
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
from timing import interleaved_minimum
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model, Qwen2VLConfig, Qwen2VLModel

from gme_data.environment import settle
from gme_embedder import smollm
from gme_embedder.batch import pack
from gme_embedder.checkpoint import Settings
from gme_embedder.embedder import Embedder, batches_by_tokens
from gme_embedder.prompt import END, VISION_TOKENS, prompt

ROUNDS = 3
TOLERANCE = 1e-5
WORDS = ("river", "capital", "flag", "country", "red", "blue", "mountain", "people", "economy", "border", "island")
SHAPE = {
    "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
QUESTION = "Given a question about a place of the world, retrieve the passages that answer the question best of all."
Encode = Callable[[], NDArray[np.float32]]


def main() -> None:
    """Print a table for each workload."""
    settle()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=256)
    sizes = parser.parse_args()
    embedder = random_embedder()
    with tempfile.TemporaryDirectory() as folder:
        peer = sentence_transformer(embedder, Path(folder))
        compare(f"{sizes.documents} documents", embedder, peer, texts(sizes.documents, 60, 0.6), None)
        compare(f"{sizes.queries} queries with an instruction", embedder, peer, texts(sizes.queries, 6, 0.4), QUESTION)


def compare(
    name: str, embedder: Embedder, peer: SentenceTransformer, items: list[str], instruction: str | None
) -> None:
    """Check, measure, print."""
    system = instruction or embedder.settings.inputs.default_instruction
    prompts = [prompt(system, text, picture=False) for text in items]
    ways: dict[str, Encode] = {
        "mteb's GME wrapper": lambda: padded(embedder, prompts),
        "SentenceTransformer": lambda: peer.encode(prompts, batch_size=32, show_progress_bar=False),
        "Embedder": lambda: embedder.encode(items, instruction),
    }
    ours = ways["Embedder"]()
    for other, encode in ways.items():
        difference = float(np.abs(encode() - ours).max())
        assert difference < TOLERANCE, f"{other} differs by {difference}"
    real, computed = tokens(embedder, items, instruction)
    print(f"{name}: {real} tokens, computed / real {computed / real:.2f}")
    seconds = interleaved_minimum(list(ways.values()), ROUNDS)
    for other, spent in zip(ways, seconds, strict=True):
        print(
            f"  {other:<20} {spent:7.2f} CPU s {len(items) / spent:8.0f} texts/s   {spent / seconds[-1]:.2f}x of ours"
        )


def padded(embedder: Embedder, prompts: list[str]) -> NDArray[np.float32]:
    """Batches of 32 in order, padded on the right, all of the model on all of the tokens."""
    language, parts = embedder.model.language, []
    with torch.inference_mode():
        for start in range(0, len(prompts), 32):
            rows = [one.ids for one in embedder.preparer.tokenizer.encode_batch(prompts[start : start + 32])]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
            states = language(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            last = states[torch.arange(len(rows)), mask.sum(1) - 1]
            parts.append(functional.normalize(last, dim=-1).numpy())
    return np.concatenate(parts)


def random_embedder() -> Embedder:
    """Weights drawn from a fixed seed, SmolLM2's tokenizer."""
    tokenizer = smollm.tokenizer(VISION_TOKENS)
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text = {**SHAPE, "vocab_size": tokenizer.get_vocab_size(), "rope_parameters": rope}
    vision = {"depth": 1, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 1, "hidden_size": SHAPE["hidden_size"]}
    config = Qwen2VLConfig(text_config=text, vision_config=vision)
    return Embedder(Qwen2VLModel(config).eval(), tokenizer, Settings())


def sentence_transformer(embedder: Embedder, folder: Path) -> SentenceTransformer:
    """The language part as a Qwen2 (the same function, for equal positions on all axes), last token, normalised."""
    tokenizer = embedder.preparer.tokenizer
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = Qwen2Config(**SHAPE, vocab_size=tokenizer.get_vocab_size(), rope_parameters=rope, use_cache=False)
    model = Qwen2Model(config)
    model.load_state_dict(embedder.model.language.state_dict())
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, padding_side="right").save_pretrained(folder)
    body = Transformer(str(folder), max_seq_length=1800)
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
    batches = batches_by_tokens(tokenised, 4096)
    computed = sum(len(pack([tokenised[row] for row in rows], "sequential").tokens) for rows in batches)
    return sum(len(item.ids) for item in tokenised), computed


if __name__ == "__main__":
    main()
