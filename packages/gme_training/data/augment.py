"""Random changes of training pictures: shift, scale, brightness, contrast and colour. No flips: flags have sides.

Knows arrays of pixels and a seed; the same seed gives the same change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gme_training.seeds import mixed

SHIFT = 0.12
SCALE = 0.15
COLOUR = 0.25


def augment(pixels: Tensor, strength: float, seed: Sequence[int]) -> Tensor:
    """Change each picture in its own way.

    Args:
        pixels: uint8 [n, h, w, 3].
        strength: 0 to 1; at 1 pictures move by up to 12 % of a side, grow or shrink by up to 15 %, and brightness,
            contrast and the colour channels change by up to 25 %.
        seed: Numbers that name the draw.

    Returns:
        uint8 [n, h, w, 3].
    """
    generator = torch.Generator().manual_seed(mixed(seed))
    count = len(pixels)

    def draw(*shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * strength

    # White is the ground of every picture, so what comes in at the border is white: work on the darkness.
    dark = 255.0 - pixels.permute(0, 3, 1, 2).float()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + SCALE * draw()
    theta[:, :, 2] = 2 * SHIFT * draw(2)
    grid = torch.nn.functional.affine_grid(theta, list(dark.shape), align_corners=False)
    moved = 255.0 - torch.nn.functional.grid_sample(dark, grid, mode="bilinear", align_corners=False)
    contrast, gain = 1 + COLOUR * draw(1, 1, 1), 1 + COLOUR * draw(3, 1, 1)
    changed = ((moved - 128) * contrast + 128) * gain + 255 * COLOUR * 0.4 * draw(1, 1, 1)
    return changed.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
