"""The forward of the vision tower over still pictures of equal size, exact: Qwen2-VL's, Qwen2.5-VL's and Qwen3-VL's.

These models repeat a still picture to fill the two frames of their temporal patch. Here the two halves of the kernel
are summed instead, and the kernel normalises the pixels as well. Pictures of one size attend side by side in one
batched call. Knows neither text nor how patches are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_window_index

from gme_embedder.config import SPATIAL_MERGE_SIZE
from gme_embedder.modeling.attention import full_attention
from gme_embedder.modeling.checkpointing import maybe_checkpoint
from gme_embedder.modeling.rotary import Rope, rotate

_PIXEL_RANGE = 255.0


@dataclass(frozen=True, slots=True)
class Windows:
    """The attention windows into which Qwen2.5-VL divides a picture.

    Attributes:
        order: The visual tokens window by window, int64 [tokens].
        sizes: Patches of each window.
    """

    order: Tensor
    sizes: list[int]


def tower_forward(
    visual: Any,  # noqa: ANN401 - a vision tower of transformers
    patches: Tensor,
    grid: tuple[int, int],
    mean: Tensor,
    std: Tensor,
    *,
    checkpointed: bool = False,
) -> tuple[Tensor, ...]:
    """Computes the visual tokens of equal-sized pictures.

    Args:
        visual: The vision tower of a transformers Qwen2-VL, Qwen2.5-VL or Qwen3-VL.
        patches: Pixels 0..255, uint8 or float [n, patches, side * side * 3].
        grid: Patches down and across.
        mean: Of pixels in 0..1, [3].
        std: As `mean`.
        checkpointed: As in `packed_forward`.

    Returns:
        The visual tokens [n, patches / 4, hidden size of the language part]; after them, for Qwen3-VL, what is added to
        the states of each of the first language layers ("deepstack"), of the same shape.
    """
    hidden_states = _embed_patches(visual.patch_embed, patches, mean, std)  # [n, p, width]
    if hasattr(visual, "pos_embed"):  # Qwen3-VL
        hidden_states = hidden_states + _learned_positions(visual, grid).to(hidden_states.dtype)
    cos, sin = visual.rotary_pos_emb(hidden_states, _positions(*grid).to(hidden_states.device))  # each [p, head]
    windows = _windows(visual, grid)
    if windows:
        hidden_states, cos, sin = (_by_window(part, windows.order) for part in (hidden_states, cos, sin))
    rope = cos[:, None], sin[:, None]
    deepstack_blocks = list(getattr(visual, "deepstack_visual_indexes", ()))
    deepstack = []  # in the order of the blocks, whatever order the mergers are in
    full_attention_blocks = set(visual.fullatt_block_indexes) if windows else set(range(len(visual.blocks)))
    for number, block in enumerate(visual.blocks):
        window_sizes = windows.sizes if windows and number not in full_attention_blocks else None
        hidden_states = maybe_checkpoint(checkpointed, _block, block, hidden_states, rope, window_sizes)
        if number in deepstack_blocks:
            merger = visual.deepstack_merger_list[deepstack_blocks.index(number)]
            deepstack.append(merger(hidden_states.flatten(0, 1)))
    merged = [visual.merger(hidden_states.flatten(0, 1)), *deepstack]
    tokens = tuple(part.view(len(patches), -1, part.shape[-1]) for part in merged)
    return tuple(part[:, windows.order.argsort()] for part in tokens) if windows else tokens


def _embed_patches(embed: Any, patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:  # noqa: ANN401
    """Applies the first layer of the tower: (pixels / 255 - mean) / std, then its kernel, as one linear map."""
    frame = embed.proj.weight.float().sum(2)  # both frames: [width, 3, 2, side, side] -> [width, 3, side, side]
    kernel = frame.permute(0, 2, 3, 1).flatten(1)  # in the order of `picture.patchify`, [width, side * side * 3]
    shift, scale = ((part * _PIXEL_RANGE).repeat(kernel.shape[1] // 3) for part in (mean, std))
    # Pixels minus a whole number are exact in bfloat16, pixels minus the mean are not; the bias corrects the fraction.
    centre = shift.round()
    bias = (kernel * ((centre - shift) / scale)).sum(1)
    if embed.proj.bias is not None:
        bias = bias + embed.proj.bias
    return functional.linear(patches.to(scale.dtype) - centre, kernel / scale, bias).to(embed.proj.weight.dtype)


def _block(block: Any, hidden_states: Tensor, rope: Rope, window_sizes: list[int] | None) -> Tensor:  # noqa: ANN401
    hidden_states = hidden_states + _attention(block.attn, block.norm1(hidden_states), rope, window_sizes)
    return hidden_states + block.mlp(block.norm2(hidden_states))  # type: ignore[no-any-return]


def _attention(attn: Any, states: Tensor, rope: Rope, window_sizes: list[int] | None) -> Tensor:  # noqa: ANN401
    """Computes attention inside each picture, or inside windows of that many patches, [n, p, width] to the same."""
    query, key, value = attn.qkv(states).view(*states.shape[:2], 3, attn.num_heads, -1).unbind(2)  # [n, p, heads, head]
    query, key = rotate(query, rope), rotate(key, rope)
    parts = [part.split(window_sizes, dim=1) if window_sizes else (part,) for part in (query, key, value)]
    output = torch.cat([full_attention(*window) for window in zip(*parts, strict=True)], dim=1)
    projected: Tensor = attn.proj(output.flatten(2))
    return projected


@cache
def _positions(rows: int, columns: int) -> Tensor:
    """Returns row and column of each patch in the order of `picture.patchify`, int64 [p, 2]."""
    coordinates = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    side = SPATIAL_MERGE_SIZE
    cells = coordinates.view(rows // side, side, columns // side, side, 2)
    return cells.transpose(1, 2).reshape(-1, 2)


def _learned_positions(visual: Any, grid: tuple[int, int]) -> Tensor:  # noqa: ANN401
    """Returns Qwen3-VL's table of positions, resampled to the grid, [p, width]."""
    indices, weights = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, *grid]]),
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=SPATIAL_MERGE_SIZE,
    )
    table: Tensor = visual.pos_embed.weight
    return (table[indices.to(table.device)] * weights.to(table.device)[..., None]).sum(1)


def _windows(visual: Any, grid: tuple[int, int]) -> Windows | None:  # noqa: ANN401
    """Returns the windows of a picture; None for a tower whose blocks all attend to the whole picture."""
    if not hasattr(visual, "fullatt_block_indexes"):
        return None
    order, boundaries = get_vision_window_index(
        torch.tensor([[1, *grid]]),
        spatial_merge_size=SPATIAL_MERGE_SIZE,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    return Windows(order, boundaries.diff().tolist())


def _by_window(states: Tensor, order: Tensor) -> Tensor:
    """Reorders the visual tokens (four patches each) of [..., p, width]."""
    cells = states.view(*states.shape[:-2], -1, SPATIAL_MERGE_SIZE**2, states.shape[-1])  # [..., tokens, 4, width]
    return cells.index_select(-3, order.to(states.device)).flatten(-3, -2)
