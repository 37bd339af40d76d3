"""The model as the engine wraps it, and the inputs that it takes.

Assigns the items of a global batch (queries, then candidates) to ranks and turns those of one rank into micro-batches.
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
from gme_training.data.augment import augment
from gme_training.data.batches import Batch, assign_to_ranks
from gme_training.data.catalog import Catalog

_LARGEST_SCALE = 100.0
"""A learned scale is clipped here, as CLIP's is."""
_CHARACTERS_A_TOKEN = 4
"""Estimates the tokens of an English text from its length."""
_FRAME_TOKENS = 7
"""The number of tokens that close every prompt."""


class ContrastiveModel(nn.Module):
    """The module that DeepSpeed wraps: the embedder and a temperature, whose forward gives vectors of micro-batches.

    Args:
        embedder: The model.
        autocast: Computes in bfloat16.
        temperature: The initial temperature.
    """

    centre: Tensor

    def __init__(self, embedder: EmbedderModel, *, autocast: bool, temperature: float) -> None:
        super().__init__()
        self.embedder = embedder
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))
        # The mean of all token embeddings says nothing of any word; it is subtracted from those of `Words`.
        self.register_buffer("centre", embedder.language.embed_tokens.weight.detach().mean(0), persistent=False)
        self._autocast = autocast

    def forward(self, batch: Inputs, objective: str) -> Tensor:
        """Returns the L2-normalised float32 vectors of a micro-batch, [n, d].

        With the tower objective they are [n, tokens * d]: the states with which pictures and words enter the language
        part.
        """
        with self.precision(self._autocast):
            if isinstance(batch, Words):
                vectors = self._mean_words(batch)
            else:
                vectors = self.embedder.embed(batch) if objective == "embedding" else self.embedder.tower(batch)
        return nn.functional.normalize(vectors.float(), dim=1)

    def trained(self) -> list[nn.Parameter]:
        """Returns the parameters that require gradients, in an order that is the same on all ranks."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def scale(self) -> Tensor:
        """Returns one divided by the temperature, a scalar, by which cosines are multiplied."""
        return torch.exp(-self.log_temperature[0]).clamp(max=_LARGEST_SCALE)

    def with_features(self, batch: Inputs) -> Inputs:
        """Returns the micro-batch with the visual tokens that a frozen tower makes of its pictures."""
        with self.precision(self._autocast):
            return self.embedder.with_visual_tokens(batch) if isinstance(batch, PreparedBatch) else batch

    def precision(self, half: bool) -> torch.autocast:
        """Returns a context in which the model computes in bfloat16, if `half`."""
        return torch.autocast(next(self.parameters()).device.type, torch.bfloat16, enabled=half)

    def _mean_words(self, batch: Words) -> Tensor:
        """Returns the centred mean token embedding of each text, repeated, [n, repeats * d]."""
        table = self.embedder.language.embed_tokens.weight
        means = nn.functional.embedding_bag(batch.tokens.to(table.device), table, batch.starts.to(table.device))
        return (means - self.centre).repeat(1, batch.repeats)


@dataclass(frozen=True, slots=True)
class Words:
    """A micro-batch of texts without prompts, for contrasting pictures with the words that name them.

    Attributes:
        tokens: The token ids of all texts, concatenated, int64 [T].
        starts: The position at which each text begins, int64 [n].
        repeats: The visual tokens of a picture; each is trained to lie near the mean of the words.
    """

    tokens: Tensor
    starts: Tensor
    repeats: int

    @property
    def real_tokens(self) -> int:
        """The number of tokens; no text is padded."""
        return len(self.tokens)


Inputs = PreparedBatch | Words


@dataclass(frozen=True, slots=True)
class RankAssignment:
    """The items of a global batch, queries before candidates, and the rank that encodes each.

    Attributes:
        items: The items of all rows.
        instructions: The instruction of each row; None for candidates.
        rows_per_rank: For each rank the rows it encodes, in the order in which its vectors are gathered.
    """

    items: tuple[Item, ...]
    instructions: tuple[str | None, ...]
    rows_per_rank: tuple[tuple[int, ...], ...]

    @property
    def counts(self) -> list[int]:
        """The number of vectors of each rank."""
        return [len(rows) for rows in self.rows_per_rank]

    def restore(self) -> Tensor:
        """Returns the index that brings the concatenated vectors of all ranks into the order of `items`, int64 [n]."""
        return torch.argsort(torch.tensor([row for rows in self.rows_per_rank for row in rows]))


def assign_items(catalog: Catalog, batch: Batch, ranks: int, cost: Callable[[Item], float]) -> RankAssignment:
    """Assigns the items of a batch to the ranks so that the sums of their costs are nearly equal."""
    examples = batch.rows.tolist()
    items = [catalog.items[i] for i in [*catalog.query[examples].tolist(), *batch.candidates.tolist()]]
    instructions = [catalog.examples.instruction(row) for row in examples] + [None] * len(batch.candidates)
    rows_per_rank = assign_to_ranks([cost(item) for item in items], ranks)
    # Rows of one instruction and modality stand together, for `InputMaker.prepare` groups neighbours.
    kinds = [(str(instruction), item.image is None) for instruction, item in zip(instructions, items, strict=True)]
    ordered = tuple(tuple(sorted(rows, key=lambda row: (kinds[row], row))) for rows in rows_per_rank)
    return RankAssignment(tuple(items), tuple(instructions), ordered)


@dataclass(frozen=True, slots=True)
class RankBatch:
    """What one rank encodes of a global batch.

    Attributes:
        micro_batches: Encoded one after the other.
        rows: The rows of their vectors, in the order of the micro-batches.
    """

    micro_batches: tuple[Inputs, ...]
    rows: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """The number of tokens that the model computes."""
        return sum(len(batch.tokens) for batch in self.micro_batches)

    @property
    def real_tokens(self) -> int:
        """The number of tokens of all items, with a shared prefix counted for each."""
        return sum(batch.real_tokens for batch in self.micro_batches)


class InputMaker:
    """Makes the micro-batches of one rank.

    Args:
        preparer: The model's preparer, which caches resized pictures.
        images: The pictures of the training set.
        tokens: The most tokens in a micro-batch of several items.
        tower_share: The tower's work on the patches of a visual token, in tokens of the language part.
    """

    def __init__(self, preparer: Preparer, images: Images, tokens: int, tower_share: float = 1.0) -> None:
        self._preparer, self._images, self._tokens = preparer, images, tokens
        self._visual_cost = 1 + tower_share

    def cost(self, item: Item) -> float:
        """Estimates the work of an item, in tokens of the language part.

        Nothing is tokenised and no picture is opened, since every rank calls it for all items of the global batch.
        """
        text = _FRAME_TOKENS + len(item.text or "") / _CHARACTERS_A_TOKEN
        if item.image is None:
            return text
        return text + self._visual_cost * self._preparer.visual_tokens(*self._images.size(item.image))

    def prepare(
        self, assignment: RankAssignment, rank: int, objective: str, *, strength: float, seed: Sequence[int]
    ) -> RankBatch:
        """Makes micro-batches of one instruction each, whose prefix is shared, and of similar lengths.

        Args:
            assignment: Which rank encodes which items.
            rank: This rank.
            objective: As in `PhaseConfig`.
            strength: The strength of the augmentation of pictures; 0 leaves them unchanged.
            seed: The seed of the augmentation.
        """
        micro_batches: list[Inputs] = []
        encoded_rows: list[int] = []
        for (instruction, is_text), group in groupby(
            assignment.rows_per_rank[rank],
            key=lambda row: (assignment.instructions[row], assignment.items[row].image is None),
        ):
            rows = list(group)
            items = [assignment.items[row] for row in rows]
            if objective == "tower" and is_text:
                micro_batches.append(self._words([item.text or "" for item in items]))
                encoded_rows += rows
                continue
            # The tower sees no prompt; without instructions all its pictures are packed as one group.
            tokenised = self._preparer.tokenise(items, instruction if objective == "embedding" else None, self._images)
            for positions in batches_by_tokens(tokenised, self._tokens):
                change = None
                if strength:
                    # Micro-batches of a step differ in their seed, or their pictures would all move alike.
                    change = partial(augment, strength=strength, seed=(*seed, rank, len(micro_batches)))
                packed = pack([tokenised[i] for i in positions], self._preparer.config.positions, change)
                micro_batches.append(packed)
                encoded_rows += [rows[i] for i in positions]
        if not micro_batches:
            # With more ranks than items a rank has none; it still takes part in the collectives, with an empty batch.
            empty = self._words([]) if objective == "tower" else pack([], self._preparer.config.positions)
            micro_batches.append(empty)
        return RankBatch(tuple(micro_batches), tuple(encoded_rows))

    def _words(self, texts: Sequence[str]) -> Words:
        written = [self._preparer.escaped_text(text) or "" for text in texts]
        encodings = self._preparer.tokenizer.encode_batch(written, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        starts = np.cumsum([0, *map(len, ids)])[:-1]
        pictures = self._preparer.config.pictures
        visual = (pictures.side // pictures.token_side) ** 2
        tokens = torch.tensor([token for text in ids for token in text], dtype=torch.long)
        return Words(tokens, torch.from_numpy(starts), visual)


def tower_share(embedder: EmbedderModel, *, frozen: bool) -> float:
    """Returns the work of the tower for each visual token, in tokens of the language part.

    The tower's weights are used once for each of the SPATIAL_MERGE_SIZE^2 patches that are merged into a visual token.
    A frozen tower runs only a forward, which is a third of a step.
    """
    tower, text = (
        sum(parameter.numel() for parameter in parameters)
        for parameters in (embedder.vision_parameters(), embedder.text_parameters())
    )
    return SPATIAL_MERGE_SIZE**2 * tower / max(text, 1) / (3 if frozen else 1)
