"""Heads: a linear map, trained on the corpus's train part, from what two frozen encoders see into one space.

What half a minute of training buys without touching an encoder: EfficientNet-lite0 for pictures, MiniLM for texts,
between them the symmetric contrastive loss of CLIP (Radford et al. 2021, figure 3), in which other examples of the same
entity are no negatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.examples import Example, read_examples
from gme_data.images import Images, ImageStore
from gme_data.items import Item
from gme_data.progress import Progress
from gme_embedder.frozen import EfficientNetLite0, MiniLM
from umrb.config import LinearProbeConfig
from umrb.systems.base import Encoder
from umrb.systems.vectors import Vectors

SINGLE_MODALITY_TYPES = frozenset({"I->I", "T->I", "I->T"})
"""Between single pictures and single texts; of texts alone MiniLM needs no head."""


class FrozenPair:
    """Features [n, 1280 + 384 + 2]: of the picture, of the text, and which of the two an item is; the other is zero."""

    def __init__(self, size: int) -> None:
        self._pictures, self._texts = EfficientNetLite0(size), MiniLM()
        self.dimension = self._pictures.dimension + self._texts.dimension + 2

    def features(self, items: Sequence[Item], images: Images) -> Vectors:
        """Encode items that are a picture or a text, never both."""
        found = np.zeros((len(items), self.dimension), np.float32)
        seen = [row for row, item in enumerate(items) if item.image]
        read = [row for row, item in enumerate(items) if item.text]
        width = self._pictures.dimension
        if seen:
            pictures = [images.load(items[row].image or "") for row in seen]
            found[seen, :width] = self._pictures.encode(pictures)
        if read:
            found[read, width:-2] = self._texts.encode([items[row].text or "" for row in read])
        found[seen, -2] = found[read, -1] = 1
        return found


def train_linear_probes(corpus: Path, config: LinearProbeConfig) -> Encoder:
    """Train, and encode by what came of it.

    Args:
        corpus: Has examples in ``examples/train``, as Atlas brings along, or in ``train``, as synthesis writes them.
        config: Which of them.

    Raises:
        FoundryError: The corpus has no training examples of the configured sources.
    """
    own = corpus / "examples" / "train"
    examples = [
        example
        for example in read_examples(own if own.is_dir() else corpus / "train")
        if example.task_type in SINGLE_MODALITY_TYPES and (not config.sources or example.source in config.sources)
    ]
    if not examples:
        raise FoundryError(
            f"{corpus} has no training examples between single pictures and texts"
            f"{' of ' + ', '.join(config.sources) if config.sources else ''}.",
            hint="See baselines.heads.sources; or leave `heads` out of baselines.systems.",
        )
    frozen = FrozenPair(config.pixels)
    items = list(dict.fromkeys(item for one in examples for item in (one.query, one.positive)))
    features = torch.from_numpy(frozen.features(items, ImageStore([corpus / "images"])))
    weight = _fit(features, _pairs(examples, items), config)

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction
        found = torch.from_numpy(frozen.features(items, images or ImageStore([])))
        return np.asarray(functional.normalize(found @ weight, dim=-1).numpy(), dtype=np.float32)

    return Encoder(sha256_bytes(weight.numpy().tobytes()), encode, instructed=False)


def _pairs(examples: Sequence[Example], items: Sequence[Item]) -> Tensor:
    """int64 [n, 3]: rows of query and positive among `items`, number of the entity."""
    row = {item: number for number, item in enumerate(items)}
    group = {name: number for number, name in enumerate(sorted({one.entity_group for one in examples}))}
    return torch.tensor([[row[one.query], row[one.positive], group[one.entity_group]] for one in examples])


def _fit(features: Tensor, pairs: Tensor, config: LinearProbeConfig) -> Tensor:
    """The map, float32 [f, d]."""
    draws = torch.Generator().manual_seed(config.seed)
    weight = torch.randn(features.shape[1], config.dimension, generator=draws) / math.sqrt(config.dimension)
    weight.requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=config.learning_rate, weight_decay=config.weight_decay)
    with Progress("train heads", config.steps, "steps") as progress:
        for _ in range(config.steps):
            batch = pairs[torch.randint(len(pairs), (config.batch_size,), generator=draws)]
            optimizer.zero_grad()
            torch.autograd.backward(_contrast(features, batch, weight, config.temperature))
            optimizer.step()
            progress.advance(1)
    return weight.detach()


def _contrast(features: Tensor, batch: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """The mean loss of both directions of a batch, int64 [b, 3] as `_pairs` makes them."""
    queries, positives, groups = batch.unbind(1)
    left, right = (functional.normalize(features[rows] @ weight, dim=-1) for rows in (queries, positives))
    same = groups[:, None] == groups[None, :]
    logits = (left @ right.T / temperature).masked_fill(same & ~torch.eye(len(batch), dtype=torch.bool), -torch.inf)
    target = torch.arange(len(batch))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
