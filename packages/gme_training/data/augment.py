"""Augmentation of training pictures: random shift, scale, brightness, contrast and colour.

There are no flips, since mirrored flags are other flags. Knows arrays of pixels and a seed; the same seed gives the
same change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gme_training.seeds import derive_seed

SHIFT = 0.12
"""The largest shift, as a share of a side."""
SCALE = 0.15
"""The largest change of size."""
COLOUR = 0.25
"""The largest change of contrast and of each colour channel."""


def augment(pixels: Tensor, strength: float, seed: Sequence[int]) -> Tensor:
    """Changes each picture in its own way.

    Args:
        pixels: uint8 [n, h, w, 3].
        strength: 0 to 1; at 1 pictures move by up to 12 % of a side, grow or shrink by up to 15 %, and brightness,
            contrast and the colour channels change by up to 25 %.
        seed: Numbers that together seed the random changes.

    Returns:
        uint8 [n, h, w, 3].
    """
    generator = torch.Generator().manual_seed(derive_seed(seed))
    count = len(pixels)

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * strength

    # grid_sample fills what comes in at the border with 0. The background of our pictures is white, so invert them.
    inverted = 255.0 - pixels.permute(0, 3, 1, 2).float()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + SCALE * uniform()
    theta[:, :, 2] = 2 * SHIFT * uniform(2)
    grid = torch.nn.functional.affine_grid(theta, list(inverted.shape), align_corners=False)
    moved = 255.0 - torch.nn.functional.grid_sample(inverted, grid, mode="bilinear", align_corners=False)
    contrast, gain = 1 + COLOUR * uniform(1, 1, 1), 1 + COLOUR * uniform(3, 1, 1)
    changed = ((moved - 128) * contrast + 128) * gain + 255 * COLOUR * 0.4 * uniform(1, 1, 1)
    return changed.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
