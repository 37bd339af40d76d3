"""The model as the engine sees it, and a batch as the model sees it.

Turns the slots of a global batch (queries, then candidates) into prepared inputs for the rank that encodes them.
Knows the embedder; not the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from gme_data.images import Images
from gme_data.items import Item
from gme_embedder.config import SPATIAL_MERGE_SIZE
from gme_embedder.embedder import batches_by_tokens
from gme_embedder.modeling.model import EmbedderModel
from gme_embedder.processing.batch import PreparedBatch, pack
from gme_embedder.processing.prepare import Preparer
from gme_training.augment import augment
from gme_training.batches import Batch, share_out
from gme_training.catalog import Catalog

_LARGEST_SCALE = 100.0
_CHARACTERS_A_TOKEN = 4
_FRAME_TOKENS = 7  # closing tokens of every prompt


class ContrastiveModel(nn.Module):
    """Vectors of prepared inputs; the one forward that DeepSpeed wraps.

    Args:
        embedder: The model.
        autocast: Compute in bfloat16.
        temperature: The first one.
    """

    centre: Tensor

    def __init__(self, embedder: EmbedderModel, *, autocast: bool, temperature: float) -> None:
        super().__init__()
        self.embedder = embedder
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))
        # What all words have in common says nothing of any of them.
        self.register_buffer("centre", embedder.language.embed_tokens.weight.detach().mean(0), persistent=False)
        self._autocast = autocast

    def forward(self, batch: Inputs, objective: str) -> Tensor:
        """L2-normalised float32 vectors of a micro-batch, [n, d]."""
        with self.precision(self._autocast):
            vectors = self._encode(batch, objective)
        return nn.functional.normalize(vectors.float(), dim=1)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that ask for gradients, in a fixed order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def scale(self) -> Tensor:
        """One divided by the temperature, by which cosines are multiplied; a learned one stops at 100, as CLIP's."""
        return torch.exp(-self.log_temperature[0]).clamp(max=_LARGEST_SCALE)

    def with_features(self, batch: Inputs) -> Inputs:
        """The micro-batch with what a frozen tower says of its pictures."""
        with self.precision(self._autocast):
            return self.embedder.with_visual_tokens(batch) if isinstance(batch, PreparedBatch) else batch

    def precision(self, half: bool) -> torch.autocast:
        """Within it the model computes in bfloat16, if `half`."""
        return torch.autocast(next(self.parameters()).device.type, torch.bfloat16, enabled=half)

    def _encode(self, batch: Inputs, objective: str) -> Tensor:
        """[n, d]; of the tower objective [n, tokens * d], where pictures and words enter the language part."""
        if isinstance(batch, Words):
            table = self.embedder.language.embed_tokens.weight
            words = (
                nn.functional.embedding_bag(batch.tokens.to(table.device), table, batch.starts.to(table.device))
                - self.centre
            )
            return words.repeat(1, batch.repeats)
        return self.embedder.embed(batch) if objective == "embedding" else self.embedder.tower(batch)


@dataclass(frozen=True, slots=True)
class Words:
    """Texts without prompts, for contrasting pictures with the words that name them.

    Attributes:
        tokens: Token ids of all texts end to end, int64 [T].
        starts: Where each begins, int64 [n].
        repeats: Visual tokens of a picture; each is to lie near the mean of the words.
    """

    tokens: Tensor
    starts: Tensor
    repeats: int

    @property
    def real_tokens(self) -> int:
        """All of them."""
        return len(self.tokens)


Inputs = PreparedBatch | Words


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
        return torch.argsort(torch.tensor([slot for part in self.parts for slot in part]))


def lay_out(catalog: Catalog, batch: Batch, ranks: int, cost: Callable[[Item], float]) -> Slots:
    """Share the items of a batch out over the ranks, evenly by `cost`."""
    rows = batch.rows.tolist()
    items = [catalog.items[i] for i in [*catalog.query[rows].tolist(), *batch.candidates.tolist()]]
    instructions = [catalog.examples.instruction(row) for row in rows] + [None] * len(batch.candidates)
    parts = share_out([cost(item) for item in items], ranks)
    kinds = [(str(instructions[slot]), item.image is None) for slot, item in enumerate(items)]
    ordered = tuple(tuple(sorted(part, key=lambda slot: (kinds[slot], slot))) for part in parts)
    return Slots(tuple(items), tuple(instructions), ordered)


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank encodes of a global batch.

    Attributes:
        micro_batches: Encoded one after the other.
        slots: The slots of their vectors, laid end to end.
    """

    micro_batches: tuple[Inputs, ...]
    slots: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that the model computes."""
        return sum(len(batch.tokens) for batch in self.micro_batches)

    @property
    def real_tokens(self) -> int:
        """Tokens of all items."""
        return sum(batch.real_tokens for batch in self.micro_batches)


class InputMaker:
    """Prepared inputs of the slots of one rank.

    Args:
        preparer: The model's own; it keeps resized pictures.
        images: Pictures of the training set.
        tokens: At most so many in a micro-batch of several items.
        tower_share: What the tower's work on the patches of a visual token costs, in tokens of the language part.
    """

    def __init__(self, preparer: Preparer, images: Images, tokens: int, tower_share: float = 1.0) -> None:
        self._preparer, self._images, self._tokens = preparer, images, tokens
        self._visual_cost = 1 + tower_share

    def cost(self, item: Item) -> float:
        """Estimated work, in tokens. Nothing is tokenised and no picture opened: every rank does it for all items."""
        text = _FRAME_TOKENS + len(item.text or "") / _CHARACTERS_A_TOKEN
        if item.image is None:
            return text
        return text + self._visual_cost * self._preparer.visual_tokens(*self._images.size(item.image))

    def prepare(self, slots: Slots, rank: int, objective: str, *, strength: float, seed: Sequence[int]) -> Share:
        """Micro-batches of one instruction, whose prefix is shared, and of similar lengths."""
        batches: list[Inputs] = []
        order: list[int] = []
        for (instruction, is_text), part in groupby(
            slots.parts[rank], key=lambda slot: (slots.instructions[slot], slots.items[slot].image is None)
        ):
            places = list(part)
            items = [slots.items[slot] for slot in places]
            if objective == "tower" and is_text:
                batches.append(self._words([item.text or "" for item in items]))
                order += places
                continue
            # A tower has no prompt; with one and the same head its pictures are packed as one group.
            asked = instruction if objective == "embedding" else None
            tokenised = self._preparer.tokenise(items, asked, self._images)
            for rows in batches_by_tokens(tokenised, self._tokens):
                picked = [tokenised[row] for row in rows]
                change = partial(augment, strength=strength, seed=(*seed, rank, len(batches))) if strength else None
                batches.append(pack(picked, self._preparer.config.positions, change))
                order += [places[row] for row in rows]
        if not batches:  # more ranks than items
            batches.append(self._words([]) if objective == "tower" else pack([], self._preparer.config.positions))
        return Share(tuple(batches), tuple(order))

    def _words(self, texts: Sequence[str]) -> Words:
        written = [self._preparer.escaped_text(text) or "" for text in texts]
        ids = [one.ids for one in self._preparer.tokenizer.encode_batch(written, add_special_tokens=False)]
        starts = np.cumsum([0, *map(len, ids)])[:-1]
        pictures = self._preparer.config.pictures
        visual = (pictures.side // pictures.token_side) ** 2
        return Words(torch.tensor([t for one in ids for t in one], dtype=torch.long), torch.from_numpy(starts), visual)


def tower_share(embedder: EmbedderModel, *, frozen: bool) -> float:
    """What the tower costs for each visual token, in tokens of the language part.

    Its weights are at work for each of the four patches behind one; frozen it runs forwards alone, a third of a step.
    """
    tower, text = (
        sum(one.numel() for one in part) for part in (embedder.vision_parameters(), embedder.text_parameters())
    )
    return SPATIAL_MERGE_SIZE**2 * tower / max(text, 1) / (3 if frozen else 1)
