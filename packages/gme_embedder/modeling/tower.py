"""The forward of the vision tower over still pictures of equal size, exact: Qwen2-VL's, Qwen2.5-VL's and Qwen3-VL's.

A still picture is one frame that these models repeat to fill their temporal patch; the two halves of the kernel are
summed instead, and pixels are normalised by the kernel as well. Pictures of one size attend side by side in one batched
call. Knows neither text nor how patches are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_window_index

from gme_embedder.modeling.attention import among_all
from gme_embedder.modeling.checkpointing import again_on_the_way_back
from gme_embedder.modeling.rotary import Rope, rotate
from gme_embedder.processing.picture import MERGE

_PIXEL_RANGE = 255.0


@dataclass(frozen=True, slots=True)
class Windows:
    """How Qwen2.5-VL divides a picture: the order of its visual tokens by window, and the patches of each window."""

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
    """Visual tokens of equal-sized pictures.

    Args:
        visual: The vision tower of a transformers Qwen2-VL, Qwen2.5-VL or Qwen3-VL.
        patches: Pixels 0..255, uint8 or float [n, patches, side * side * 3].
        grid: Patches down and across.
        mean: Of pixels in 0..1, [3].
        std: As `mean`.
        checkpointed: As in `packed_forward`.

    Returns:
        The visual tokens [n, patches / 4, hidden size of the language part]; after them, for Qwen3-VL, those that are
        added to the states of each of the first language layers, of the same shape.
    """
    hidden = _embed_patches(visual.patch_embed, patches, mean, std)  # [n, p, width]
    if hasattr(visual, "pos_embed"):
        hidden = hidden + _learned_positions(visual, grid).to(hidden.dtype)
    cos, sin = visual.rotary_pos_emb(hidden, _positions(*grid).to(hidden.device))  # each [p, head]
    windows = _windows(visual, grid)
    if windows:
        hidden, cos, sin = (_by_window(part, windows.order) for part in (hidden, cos, sin))
    taken = list(getattr(visual, "deepstack_visual_indexes", ()))
    deep = []  # in the order of the blocks, whatever order the mergers are in
    rope = cos[:, None], sin[:, None]
    for number, states in enumerate(_blocks(visual, hidden, rope, windows, checkpointed=checkpointed)):
        hidden = states
        if number in taken:
            deep.append(visual.deepstack_merger_list[taken.index(number)](hidden.flatten(0, 1)))
    tokens = [visual.merger(hidden.flatten(0, 1)), *deep]
    apart = tuple(part.view(len(patches), -1, part.shape[-1]) for part in tokens)
    return tuple(part[:, windows.order.argsort()] for part in apart) if windows else apart


def _embed_patches(embed: Any, patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:  # noqa: ANN401
    """First layer of the tower: (pixels / 255 - mean) / std, then its kernel, as one linear map."""
    still = embed.proj.weight.float().sum(2)  # both frames: [width, 3, 2, side, side] -> [width, 3, side, side]
    kernel = still.permute(0, 2, 3, 1).flatten(1)  # in the order of `picture.patchify`, [width, side * side * 3]
    shift, scale = ((part * _PIXEL_RANGE).repeat(kernel.shape[1] // 3) for part in (mean, std))
    # Whole numbers about zero are exact in bfloat16, and what is left for the bias is next to nothing.
    centre = shift.round()
    bias = (kernel * ((centre - shift) / scale)).sum(1)
    if embed.proj.bias is not None:
        bias = bias + embed.proj.bias
    return functional.linear(patches.to(scale.dtype) - centre, kernel / scale, bias).to(embed.proj.weight.dtype)


def _blocks(
    visual: Any,  # noqa: ANN401
    hidden: Tensor,
    rope: Rope,
    windows: Windows | None,
    *,
    checkpointed: bool,
) -> Iterator[Tensor]:
    """States after each block, [n, p, width]."""
    everywhere = set(visual.fullatt_block_indexes) if windows else set(range(len(visual.blocks)))
    for number, block in enumerate(visual.blocks):
        within = windows.sizes if windows and number not in everywhere else None
        hidden = again_on_the_way_back(checkpointed, _block, block, hidden, rope, within)
        yield hidden


def _block(block: Any, hidden: Tensor, rope: Rope, windows: list[int] | None) -> Tensor:  # noqa: ANN401
    hidden = hidden + _attention(block.attn, block.norm1(hidden), rope, windows)
    return hidden + block.mlp(block.norm2(hidden))  # type: ignore[no-any-return]


def _attention(attn: Any, states: Tensor, rope: Rope, windows: list[int] | None) -> Tensor:  # noqa: ANN401
    """Attention inside each picture, or inside windows of so many patches, [n, p, width] -> [n, p, width]."""
    query, key, value = attn.qkv(states).view(*states.shape[:2], 3, attn.num_heads, -1).unbind(2)  # [n, p, heads, head]
    query, key = rotate(query, rope), rotate(key, rope)
    parts = [part.split(windows, dim=1) if windows else (part,) for part in (query, key, value)]
    mixed = torch.cat([among_all(*window) for window in zip(*parts, strict=True)], dim=1)
    update: Tensor = attn.proj(mixed.flatten(2))
    return update


@cache
def _positions(rows: int, columns: int) -> Tensor:
    """Row and column of each patch in the order of `picture.patchify`, int64 [p, 2]."""
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    cells = places.view(rows // MERGE, MERGE, columns // MERGE, MERGE, 2)
    return cells.transpose(1, 2).reshape(-1, 2)


def _learned_positions(visual: Any, grid: tuple[int, int]) -> Tensor:  # noqa: ANN401
    """Qwen3-VL's table of positions, resampled to the grid, [p, width]."""
    places, weights = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, *grid]]),
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=MERGE,
    )
    table: Tensor = visual.pos_embed.weight
    return (table[places.to(table.device)] * weights.to(table.device)[..., None]).sum(1)


def _windows(visual: Any, grid: tuple[int, int]) -> Windows | None:  # noqa: ANN401
    if not hasattr(visual, "fullatt_block_indexes"):
        return None
    order, borders = get_vision_window_index(
        torch.tensor([[1, *grid]]),
        spatial_merge_size=MERGE,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    return Windows(order, borders.diff().tolist())


def _by_window(states: Tensor, order: Tensor) -> Tensor:
    """Reorder visual tokens (four patches each) of [..., p, width]."""
    cells = states.view(*states.shape[:-2], -1, MERGE**2, states.shape[-1])  # [..., tokens, 4, width]
    return cells.index_select(-3, order.to(states.device)).flatten(-3, -2)
