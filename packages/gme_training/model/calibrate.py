"""A first scale for the final norm, from data.

The pooled states of the first layers of a language model share a large constant part: every pair of inputs has a
cosine above 0.99, and a contrastive loss at a low temperature stands still until training has worked it away. The
weight of the final norm can play it down from the start. Knows one vector of weights and a sample of items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gme_data.images import Images
from gme_data.items import Item
from gme_embedder.embedder import Embedder


@torch.no_grad()
def calibrate(embedder: Embedder, items: Sequence[Item], images: Images) -> None:
    """Set the final norm's weight to each dimension's Wiener gain, std / (mean^2 + std^2), scaled to unit mean square.

    Dimensions that say the same of every item fade; what varies stays. Deterministic, so ranks agree without talking.

    Args:
        embedder: Changed in place.
        items: A sample of what is trained on, of all modalities.
        images: Their pictures.
    """
    weight = embedder.model.language.norm.weight
    vectors = torch.from_numpy(embedder.encode(items, None, images)).to(weight.device)
    states = vectors / weight  # [n, d], each up to a positive factor
    mean, variance = states.mean(0), states.var(0)
    gain = variance.sqrt() / (mean.square() + variance)
    weight.copy_(gain / gain.square().mean().sqrt())


def sample_items(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """`count` of the items, or all if there are fewer, drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[place] for place in order.tolist()]
