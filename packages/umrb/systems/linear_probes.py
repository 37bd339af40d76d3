"""Linear probes: one linear map, trained on the corpus's train split, from two frozen encoders into one space.

They show what half a minute of training buys without touching an encoder: EfficientNet-lite0 for pictures, MiniLM for
texts, and between them the symmetric contrastive loss of CLIP (Radford et al. 2021, figure 3), in which other examples
of the same entity are no negatives.
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
"""Task types between single pictures and single texts. T->T is left out, since MiniLM alone encodes both its sides."""


class FrozenFeatures:
    """Features [n, 1280 + 384 + 2] of items that are a picture or a text, never both.

    The columns are those of EfficientNet, those of MiniLM, and two flags for the modality; what an item lacks is zero.
    """

    def __init__(self, size: int) -> None:
        self._pictures, self._texts = EfficientNetLite0(size), MiniLM()
        self.dimension = self._pictures.dimension + self._texts.dimension + 2

    def encode(self, items: Sequence[Item], images: Images) -> Vectors:
        """Return the features of `items`, float32 [n, dimension]."""
        features = np.zeros((len(items), self.dimension), np.float32)
        picture_rows = [row for row, item in enumerate(items) if item.image]
        text_rows = [row for row, item in enumerate(items) if item.text]
        width = self._pictures.dimension
        if picture_rows:
            pictures = [images.load(items[row].image or "") for row in picture_rows]
            features[picture_rows, :width] = self._pictures.encode(pictures)
        if text_rows:
            features[text_rows, width:-2] = self._texts.encode([items[row].text or "" for row in text_rows])
        # The flags act as one bias per modality: without them the map could not shift pictures towards texts.
        features[picture_rows, -2] = features[text_rows, -1] = 1
        return features


def train_linear_probes(corpus: Path, config: LinearProbeConfig) -> Encoder:
    """Train the linear map and return the encoder that applies it.

    Args:
        corpus: Has examples in ``examples/train``, as Atlas does, or in ``train``, as synthesis writes them.
        config: Sources of the examples, and the settings of the training.

    Raises:
        FoundryError: The corpus has no training examples of the configured sources.
    """
    atlas_examples = corpus / "examples" / "train"
    examples = [
        example
        for example in read_examples(atlas_examples if atlas_examples.is_dir() else corpus / "train")
        if example.task_type in SINGLE_MODALITY_TYPES and (not config.sources or example.source in config.sources)
    ]
    if not examples:
        raise FoundryError(
            f"{corpus} has no training examples between single pictures and texts"
            f"{' of ' + ', '.join(config.sources) if config.sources else ''}.",
            hint="See baselines.linear_probes.sources; or leave `linear_probes` out of baselines.systems.",
        )
    frozen = FrozenFeatures(config.pixels)
    # Frozen features are computed once; an item may be in many examples.
    items = list(dict.fromkeys(item for example in examples for item in (example.query, example.positive)))
    features = torch.from_numpy(frozen.encode(items, ImageStore([corpus / "images"])))
    weight = _fit(features, _pairs(examples, items), config)

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction
        features = torch.from_numpy(frozen.encode(items, images or ImageStore([])))
        return np.asarray(functional.normalize(features @ weight, dim=-1).numpy(), dtype=np.float32)

    # The weights name the encoder: another training gives other vectors.
    return Encoder(sha256_bytes(weight.numpy().tobytes()), encode, instructed=False)


def _pairs(examples: Sequence[Example], items: Sequence[Item]) -> Tensor:
    """int64 [n, 3]: rows of query and positive among `items`, and the number of the entity."""
    row = {item: number for number, item in enumerate(items)}
    groups = sorted({example.entity_group for example in examples})
    group = {name: number for number, name in enumerate(groups)}
    return torch.tensor(
        [[row[example.query], row[example.positive], group[example.entity_group]] for example in examples]
    )


def _fit(features: Tensor, pairs: Tensor, config: LinearProbeConfig) -> Tensor:
    """Train the map on features [n, f] and pairs [p, 3]; returns float32 [f, d]."""
    generator = torch.Generator().manual_seed(config.seed)
    weight = torch.randn(features.shape[1], config.dimension, generator=generator) / math.sqrt(config.dimension)
    weight.requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=config.learning_rate, weight_decay=config.weight_decay)
    with Progress("train linear probes", config.steps, "steps") as progress:
        for _ in range(config.steps):
            batch = pairs[torch.randint(len(pairs), (config.batch_size,), generator=generator)]
            optimizer.zero_grad()
            torch.autograd.backward(_contrastive_loss(features, batch, weight, config.temperature))
            optimizer.step()
            progress.advance(1)
    return weight.detach()


def _contrastive_loss(features: Tensor, batch: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Mean InfoNCE loss of both directions of a batch, int64 [b, 3] as `_pairs` makes them."""
    queries, positives, groups = batch.unbind(1)
    query_vectors, positive_vectors = (
        functional.normalize(features[rows] @ weight, dim=-1) for rows in (queries, positives)
    )
    same_entity = groups[:, None] == groups[None, :]
    # Another example of the same entity is a right answer too: it must not be pushed away.
    false_negatives = same_entity & ~torch.eye(len(batch), dtype=torch.bool)
    logits = (query_vectors @ positive_vectors.T / temperature).masked_fill(false_negatives, -torch.inf)
    target = torch.arange(len(batch))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
