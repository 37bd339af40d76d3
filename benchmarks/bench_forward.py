"""Packed forward against transformers' padded one on the same token ids: ``python benchmarks/bench_forward.py``.

Both sides embed the same 96 items (texts, pictures, pictures with text) with the untrained tiny model in float32 on one
thread. The embeddings must agree before a ratio is printed.
"""

from __future__ import annotations

import argparse
import random

import numpy as np
import torch
from PIL import Image
from timing import interleaved_minimum
from torch import Tensor
from torch.nn import functional

from gme_data.environment import set_default_env
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.processing.picture import patchify

WORDS = ("river", "capital", "flag", "country", "red", "blue", "mountain", "people", "economy", "border", "island")
REPEATS = 5
TOLERANCE = 1e-5


def main() -> None:
    """Print one table."""
    set_default_env()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=96)
    embedder = Embedder.fresh(ModelConfig(), seed=0)
    items = make_items(parser.parse_args().items)
    with torch.inference_mode():
        packed = lambda: embedder.model.embed(embedder.preparer.prepare(items))  # noqa: E731
        padded = lambda: padded_forward(embedder, items)  # noqa: E731
        difference = float((packed() - padded()).abs().max())
        assert difference < TOLERANCE, f"the two forwards differ by {difference}"
        ours, theirs = interleaved_minimum([packed, padded], REPEATS)
    print(f"{len(items)} items, largest difference {difference:.1e}")
    print(f"transformers, padded  {theirs:7.3f} CPU s   {len(items) / theirs:7.1f} items/s")
    print(f"packed                {ours:7.3f} CPU s   {len(items) / ours:7.1f} items/s   {theirs / ours:.2f}x")


def make_items(count: int) -> list[dict[str, object]]:
    """Texts of 4 to 60 words, pictures, and pictures with a short text, from a fixed seed."""
    draw, noise = random.Random(0), np.random.default_rng(0)  # noqa: S311
    items: list[dict[str, object]] = []
    for number in range(count):
        text = " ".join(draw.choices(WORDS, k=draw.randint(4, 60) if number % 3 == 0 else 8))
        picture = Image.fromarray(noise.integers(0, 256, (72, 72, 3), dtype=np.uint8))
        items.append([{"text": text}, {"image": picture}, {"text": text, "image": picture}][number % 3])
    return items


def padded_forward(embedder: Embedder, items: list[dict[str, object]]) -> Tensor:
    """What the released code does: pad to the longest, run the whole model, take the last real token."""
    qwen = embedder.model.qwen
    tokenised = embedder.preparer.tokenise(items)
    longest = max(len(item.ids) for item in tokenised)
    ids = torch.tensor([item.ids + [0] * (longest - len(item.ids)) for item in tokenised])
    mask = torch.tensor([[1] * len(item.ids) + [0] * (longest - len(item.ids)) for item in tokenised])
    embeds = qwen.language_model.embed_tokens(ids)
    is_visual = torch.zeros_like(ids, dtype=torch.bool)
    for row, item in enumerate(tokenised):
        is_visual[row, item.image_start : item.image_start + item.token_grid[0] * item.token_grid[1]] = True
    embeds[is_visual] = visual_tokens(embedder, [item.pixels for item in tokenised if item.pixels is not None])
    positions = torch.arange(longest).expand(3, len(items), longest)
    states = qwen.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return functional.normalize(states[torch.arange(len(items)), mask.sum(1) - 1], dim=-1)


def visual_tokens(embedder: Embedder, pictures: list[np.ndarray]) -> Tensor:
    """The vision tower of transformers on all pictures in one call, each frame doubled as its processor does."""
    pixels = torch.from_numpy(np.stack(pictures))  # uint8 [n, height, width, 3]
    count, rows, columns = len(pixels), pixels.shape[1] // 14, pixels.shape[2] // 14
    patches = patchify(pixels, 14).float().view(-1, 14, 14, 3).permute(0, 3, 1, 2)[:, :, None] / 255
    mean, std = (part.view(1, 3, 1, 1, 1) for part in (embedder.model.mean, embedder.model.std))
    doubled = ((patches - mean) / std).expand(-1, -1, 2, -1, -1).flatten(1)
    grid = torch.tensor([[1, rows, columns]]).expand(count, 3)
    return embedder.model.qwen.visual(doubled, grid_thw=grid).pooler_output


if __name__ == "__main__":
    main()
