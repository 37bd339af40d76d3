"""The model as the engine sees it, and a batch as the model sees it.

Turns the slots of a global batch (queries, then candidates) into prepared inputs for the rank that encodes them.
Knows the embedder; not the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gme_data.images import ImageStore
from gme_data.items import Item
from gme_embedder.batch import PreparedBatch
from gme_embedder.model import EmbedderModel
from gme_embedder.prepare import Preparer
from gme_training.augment import augment
from gme_training.batches import Batch, share_out
from gme_training.catalog import Catalog

_CHARACTERS_A_TOKEN = 4
_FRAME_TOKENS = 7  # closing tokens of every prompt
_PICTURE_TOKENS = 12  # a small picture costs the tower and the language part about as much as this many text tokens


class ContrastiveModel(nn.Module):
    """Vectors of prepared inputs; the one forward that DeepSpeed wraps.

    Args:
        embedder: The model.
        autocast: Compute in bfloat16.
    """

    def __init__(self, embedder: EmbedderModel, *, autocast: bool) -> None:
        super().__init__()
        self.embedder = embedder
        self._autocast = autocast

    def forward(self, batches: Sequence[PreparedBatch], objective: str) -> Tensor:
        """L2-normalised float32 vectors of the batches laid end to end, [n, d]."""
        device = next(self.parameters()).device.type
        encode = self.embedder.embed if objective == "embedding" else self.embedder.tower
        with torch.autocast(device, torch.bfloat16, enabled=self._autocast):
            vectors = torch.cat([encode(batch) for batch in batches])
        return nn.functional.normalize(vectors.float(), dim=1)


@dataclass(frozen=True, slots=True)
class Slots:
    """The items of a global batch in the order queries, candidates, and who encodes which.

    Attributes:
        items: All of them.
        instructions: Of each; None for candidates.
        parts: For each rank the slots it encodes, in the order in which its vectors come.
    """

    items: tuple[Item, ...]
    instructions: tuple[str | None, ...]
    parts: tuple[tuple[int, ...], ...]

    @property
    def counts(self) -> list[int]:
        """Vectors of each rank."""
        return [len(part) for part in self.parts]

    def restore(self) -> Tensor:
        """Index that brings the vectors of all ranks, laid end to end, into the order of `items`. int64 [n]."""
        order = torch.tensor([slot for part in self.parts for slot in part])
        return torch.argsort(order)


def lay_out(catalog: Catalog, batch: Batch, ranks: int) -> Slots:
    """Share the items of a batch out over the ranks, evenly by estimated tokens."""
    rows = batch.rows.tolist()
    items = [catalog.items[i] for i in [*catalog.query[rows].tolist(), *batch.candidates.tolist()]]
    instructions = [catalog.examples[row].instruction for row in rows] + [None] * len(batch.candidates)
    parts = share_out([_cost(item) for item in items], ranks)
    # Inputs of one instruction share its prefix, so a rank takes them together.
    ordered = tuple(tuple(sorted(part, key=lambda slot: (str(instructions[slot]), slot))) for part in parts)
    return Slots(tuple(items), tuple(instructions), ordered)


class InputMaker:
    """Prepared inputs of the slots of one rank.

    Args:
        preparer: The model's own; it keeps resized pictures.
        images: Pictures of the training set.
    """

    def __init__(self, preparer: Preparer, images: ImageStore) -> None:
        self._preparer, self._images = preparer, images

    def prepare(self, slots: Slots, rank: int, *, strength: float, seed: Sequence[int]) -> list[PreparedBatch]:
        """One batch per instruction, in the order of ``slots.parts[rank]``."""
        change = partial(augment, strength=strength, seed=(*seed, rank)) if strength else None
        part = slots.parts[rank]
        instructions = list(dict.fromkeys(slots.instructions[slot] for slot in part))
        return [
            self._preparer.prepare(
                [slots.items[slot] for slot in part if slots.instructions[slot] == instruction],
                instruction,
                self._images,
                augment=change,
            )
            for instruction in instructions
        ]


def _cost(item: Item) -> int:
    return _FRAME_TOKENS + len(item.text or "") // _CHARACTERS_A_TOKEN + (_PICTURE_TOKENS if item.image else 0)
