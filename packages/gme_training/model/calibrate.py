"""Calibrates the final norm of a fresh model from data.

The pooled states of the first layers of a language model share a large constant part: every pair of inputs has a
cosine above 0.99, and a contrastive loss at a low temperature stands still until training has removed it. The weight of
the final norm can scale it down from the start. Knows one vector of weights and a sample of items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gme_data.images import Images
from gme_data.items import Item
from gme_embedder.embedder import Embedder


@torch.no_grad()
def calibrate_final_norm(embedder: Embedder, items: Sequence[Item], images: Images) -> None:
    """Sets the final norm's weight to each dimension's Wiener gain, std / (mean^2 + std^2), scaled to unit mean square.

    Dimensions that are the same for every item fade; those that vary stay. Deterministic, so ranks agree without
    communication.

    Args:
        embedder: Changed in place.
        items: A sample of the training items, of all modalities.
        images: Their pictures.
    """
    weight = embedder.model.language.norm.weight
    vectors = torch.from_numpy(embedder.encode(items, None, images)).to(weight.device)
    # Dividing by the weight undoes the norm's scale; each state is known up to a positive factor, as vectors have
    # length 1.
    states = vectors / weight  # [n, d]
    mean, variance = states.mean(0), states.var(0)
    gain = variance.sqrt() / (mean.square() + variance)
    weight.copy_(gain / gain.square().mean().sqrt())


def sample_items(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """Returns `count` of the items, or all if there are fewer, sampled with `seed`."""
    order = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[number] for number in order.tolist()]
