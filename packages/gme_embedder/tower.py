"""The forward of the vision tower over still pictures of equal size, exact.

A still picture is one frame that Qwen2-VL repeats to fill its temporal patch; the two halves of the kernel are summed
instead. Pictures of one size attend side by side in one batched call. Knows neither text nor how patches are made.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gme_embedder.picture import MERGE

_PIXEL_RANGE = 255.0


def tower_forward(visual: Any, patches: Tensor, grid: tuple[int, int], mean: Tensor, std: Tensor) -> Tensor:  # noqa: ANN401
    """Visual tokens of equal-sized pictures.

    Args:
        visual: The vision tower of a transformers Qwen2-VL.
        patches: Pixels 0..255, uint8 or float [n, patches, 588].
        grid: Patches down and across.
        mean: Of pixels in 0..1, [3].
        std: As `mean`.

    Returns:
        [n, patches / 4, hidden size of the language part].
    """
    hidden = _embed_patches(visual.patch_embed, patches, mean, std)  # [n, p, width]
    cos, sin = visual.rotary_pos_emb(hidden, _positions(*grid).to(hidden.device))  # each [p, head]
    for block in visual.blocks:
        hidden = hidden + _attention(block.attn, block.norm1(hidden), cos[:, None], sin[:, None])
        hidden = hidden + block.mlp(block.norm2(hidden))
    tokens: Tensor = visual.merger(hidden.flatten(0, 1))
    return tokens.view(len(patches), -1, tokens.shape[-1])


def _embed_patches(embed: Any, patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:  # noqa: ANN401
    kernel = embed.proj.weight.sum(2).flatten(1)  # [width, 3, 2, 14, 14] -> [width, 588]
    per_channel = patches.shape[-1] // mean.numel()
    shift, scale = ((part * _PIXEL_RANGE).repeat_interleave(per_channel) for part in (mean, std))
    return functional.linear((patches.to(shift.dtype) - shift) / scale, kernel)


@cache
def _positions(rows: int, columns: int) -> Tensor:
    """Row and column of each patch in the order of `picture.patchify`, int64 [p, 2]."""
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    cells = places.view(rows // MERGE, MERGE, columns // MERGE, MERGE, 2)
    return cells.transpose(1, 2).reshape(-1, 2)


def _attention(attn: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401
    """Attention inside each picture, [n, p, width] -> [n, p, width]."""
    query, key, value = attn.qkv(states).view(*states.shape[:2], 3, attn.num_heads, -1).unbind(2)  # [n, p, heads, head]
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).to(value.dtype)
    update: Tensor = attn.proj((weights @ value).transpose(1, 2).flatten(2))
    return update


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-right, left), dim=-1) * sin
