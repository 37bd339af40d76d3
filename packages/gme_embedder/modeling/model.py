"""The embedder as a torch module: packed batch in, unit vectors out.

Holds a transformers Qwen2-VL, Qwen2.5-VL or Qwen3-VL and runs it by the packed forward. Knows neither items nor files,
loss nor optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gme_embedder.config import PictureConfig
from gme_embedder.modeling.attention import GroupedAttention, PackedAttention, VarlenAttention
from gme_embedder.modeling.backbone import Backbone
from gme_embedder.modeling.packed import PrefixCache, packed_forward, prefix_states
from gme_embedder.modeling.tower import tower_forward
from gme_embedder.processing.batch import PackedLayout, PreparedBatch

PrefixCaches = dict[tuple[int, ...], PrefixCache]
"""Keys and values of prompts' first tokens, by their token ids."""


class EmbedderModel(nn.Module):
    """A vision-language model that pools the last token.

    Args:
        backbone: The vision-language model; its token embeddings are frozen here.
        pictures: Mean and standard deviation of the pixels.
        kernel: A variable-length kernel by its name in transformers' attention interface, such as `flash_attention_2`;
            with None, sequences of equal length run side by side.
    """

    mean: Tensor
    std: Tensor
    checkpointed: bool = False
    """Whether training keeps only the input of each layer and recomputes the layer in backward."""

    def __init__(self, backbone: Backbone, pictures: PictureConfig, kernel: str | None = None) -> None:
        super().__init__()
        self.qwen = backbone
        self._kernel = ALL_ATTENTION_FUNCTIONS[kernel] if kernel else None
        # Buffers, so that they move with the model; not saved with the weights, since gme.json has them.
        self.register_buffer("mean", torch.tensor(pictures.mean), persistent=False)
        self.register_buffer("std", torch.tensor(pictures.std), persistent=False)
        backbone.language_model.embed_tokens.requires_grad_(False)

    @property
    def dimension(self) -> int:
        """Size of an embedding, d."""
        return int(self.language.config.hidden_size)

    @property
    def language(self) -> Any:  # noqa: ANN401 - a text model of transformers, perhaps with adapters
        """The language part; adapters are injected here."""
        return self.qwen.language_model

    def forward(self, batch: PreparedBatch, *, tower_only: bool = False) -> Tensor:
        """Calls `embed`, or `tower` with `tower_only`; wrappers such as DeepSpeed have only this method to wrap."""
        return self.tower(batch) if tower_only else self.embed(batch)

    def embed(self, batch: PreparedBatch, prefixes: PrefixCaches | None = None) -> Tensor:
        """Computes the embeddings of all items, L2-normalised.

        Args:
            batch: May be empty.
            prefixes: Keys and values of prompts that were computed before, to which those of this batch are added. For
                inference with unchanged weights.

        Returns:
            fp32 [n, d] in the caller's order.
        """
        if not len(batch):
            return torch.zeros(0, self.dimension, device=self.mean.device)
        prefix = None
        if prefixes is not None and batch.layout.prefix:
            prefix, batch = self._prefix(batch, prefixes), batch.without_prefix()
        device = self.mean.device
        language = self.language
        embeds = language.embed_tokens(batch.tokens.to(device))  # [T, d]
        visual_indices = batch.visual_indices.to(device)
        deepstack: tuple[Tensor, ...] = ()
        if batch.pictures:
            tokens, *added = (part[batch.visual_rows.to(device)] for part in self._visual_tokens(batch))  # [s, d] each
            embeds, deepstack = embeds.index_copy(0, visual_indices, tokens.to(embeds.dtype)), tuple(added)
        pooled = packed_forward(
            language,
            embeds,
            batch.positions.to(device),
            batch.layout,
            self._attention(batch.layout),
            visual_indices,
            deepstack,
            prefix,
            checkpointed=self.checkpointed,
        )
        return functional.normalize(pooled.float(), dim=-1)[batch.rows.to(device)]

    def tower(self, batch: PreparedBatch) -> Tensor:
        """Computes the visual tokens alone, concatenated, of items that all have a picture of equal token count.

        Returns:
            fp32 [n, tokens * d], L2-normalised, in the caller's order.

        Raises:
            ValueError: An item without a picture, or unequal token counts.
        """
        device = self.mean.device
        count, remainder = divmod(len(batch.visual_indices), max(len(batch), 1))
        equal = not remainder and len({group.patches.shape[1] for group in batch.pictures}) <= 1
        if not equal or (len(batch) and not count) or len(batch.layout.groups) > 1:
            raise ValueError("the tower alone takes items that all have a picture of equal size and no text")
        if not len(batch):
            return torch.zeros(0, self.dimension, device=device)
        tokens = self._visual_tokens(batch)[0][batch.visual_rows.to(device)]
        flat = tokens.view(len(batch), count * self.dimension)
        return functional.normalize(flat.float(), dim=-1)[batch.rows.to(device)]

    @torch.no_grad()
    def with_visual_tokens(self, batch: PreparedBatch) -> PreparedBatch:
        """Returns the batch with its visual tokens computed: a frozen tower runs once, however often it is embedded."""
        return replace(batch, visual_tokens=tuple(self._visual_tokens(batch))) if batch.pictures else batch

    def text_parameters(self) -> Iterator[nn.Parameter]:
        """Returns the parameters of the language part without its token table, which is never trained."""
        table = self.language.embed_tokens.weight
        return (parameter for parameter in self.language.parameters() if parameter is not table)

    def vision_parameters(self) -> Iterator[nn.Parameter]:
        """Returns the parameters of the vision tower."""
        visual: nn.Module = self.qwen.visual
        return visual.parameters()

    def _prefix(self, batch: PreparedBatch, prefixes: PrefixCaches) -> PrefixCache:
        tokens = batch.tokens[: batch.layout.prefix]
        key = tuple(tokens.tolist())
        if key not in prefixes:
            embeds = self.language.embed_tokens(tokens.to(self.mean.device))
            prefixes[key] = prefix_states(self.language, embeds, batch.positions[:, : len(tokens)].to(self.mean.device))
        return prefixes[key]

    def _visual_tokens(self, batch: PreparedBatch) -> list[Tensor]:
        """Returns the visual tokens of all distinct pictures end to end, [tokens, d], then those of the deepstack."""
        if batch.visual_tokens is not None:
            return list(batch.visual_tokens)
        parts = [
            tower_forward(
                self.qwen.visual,
                group.patches.to(self.mean.device),
                group.grid,
                self.mean,
                self.std,
                checkpointed=self.checkpointed,
            )
            for group in batch.pictures
        ]
        return [torch.cat([part.flatten(0, 1) for part in kind]) for kind in zip(*parts, strict=True)]

    def _attention(self, layout: PackedLayout) -> PackedAttention:
        return VarlenAttention(layout, self._kernel, self.mean.device) if self._kernel else GroupedAttention(layout)
