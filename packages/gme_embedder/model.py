"""The embedder as a torch module: packed batch in, unit vectors out.

Holds a transformers Qwen2-VL and runs it by the packed forward. Knows neither items nor files, loss nor optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLModel, Qwen2VLTextModel

from gme_embedder.batch import PreparedBatch
from gme_embedder.config import PictureConfig
from gme_embedder.packed import packed_forward
from gme_embedder.tower import tower_forward


class EmbedderModel(nn.Module):
    """A Qwen2-VL that pools the last token.

    Args:
        qwen: Its token embeddings are frozen here.
        pictures: Mean and standard deviation of the pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, qwen: Qwen2VLModel, pictures: PictureConfig) -> None:
        super().__init__()
        self.qwen = qwen
        self.register_buffer("mean", torch.tensor(pictures.mean), persistent=False)
        self.register_buffer("std", torch.tensor(pictures.std), persistent=False)
        qwen.language_model.embed_tokens.requires_grad_(False)

    @property
    def dimension(self) -> int:
        """Size of an embedding, d."""
        return int(self.language.config.hidden_size)

    @property
    def language(self) -> Qwen2VLTextModel:
        """The language part; adapters are injected here."""
        language: Qwen2VLTextModel = self.qwen.language_model
        return language

    def forward(self, batch: PreparedBatch, *, tower_only: bool = False) -> Tensor:
        """`embed`, or `tower` with `tower_only`; wrappers such as DeepSpeed call this."""
        return self.tower(batch) if tower_only else self.embed(batch)

    def embed(self, batch: PreparedBatch) -> Tensor:
        """Embeddings of all items in the caller's order, fp32 [n, d], L2-normalised; [0, d] for an empty batch."""
        if not len(batch):
            return torch.zeros(0, self.dimension, device=self.mean.device)
        device = self.mean.device
        language = self.language
        embeds = language.embed_tokens(batch.tokens.to(device))  # [T, d]
        if batch.pictures:
            visual = self._visual_tokens(batch)[batch.visual_rows.to(device)]  # [s, d]
            embeds = embeds.index_copy(0, batch.slots.to(device), visual.to(embeds.dtype))
        pooled = packed_forward(language, embeds, batch.positions.to(device), batch.layout)
        return functional.normalize(pooled.float(), dim=-1)[batch.rows.to(device)]

    def tower(self, batch: PreparedBatch) -> Tensor:
        """Visual tokens alone, one after the other, of items that all have a picture of equal token count.

        Returns:
            fp32 [n, tokens * d], L2-normalised, in the caller's order.

        Raises:
            ValueError: An item without a picture, or unequal token counts.
        """
        device = self.mean.device
        count, odd = divmod(len(batch.slots), max(len(batch), 1))
        even = not odd and len({group.patches.shape[1] for group in batch.pictures}) <= 1
        if not even or (len(batch) and not count) or len(batch.layout.groups) > 1:
            raise ValueError("the tower alone takes items that all have a picture of equal size and no text")
        if not len(batch):
            return torch.zeros(0, self.dimension, device=device)
        tokens = self._visual_tokens(batch)[batch.visual_rows.to(device)]
        flat = tokens.view(len(batch), count * self.dimension)
        return functional.normalize(flat.float(), dim=-1)[batch.rows.to(device)]

    def text_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the language part without its token table, which stays as it is."""
        table = self.language.embed_tokens.weight
        return (parameter for parameter in self.language.parameters() if parameter is not table)

    def vision_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the vision tower."""
        visual: nn.Module = self.qwen.visual
        return visual.parameters()

    def _visual_tokens(self, batch: PreparedBatch) -> Tensor:
        """Visual tokens of all distinct pictures end to end, [sum of tokens, d]."""
        parts = [
            tower_forward(self.qwen.visual, group.patches.to(self.mean.device), group.grid, self.mean, self.std)
            for group in batch.pictures
        ]
        return torch.cat([part.flatten(0, 1) for part in parts])
