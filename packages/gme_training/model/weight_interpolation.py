"""Interpolates between the weights that a stage started from and those it trained, so that less is forgotten.

    saved = (1 - share) * trained + share * start

(WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903, section 3.) Knows modules; not the loop.
"""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def interpolate_weights(model: nn.Module, start: nn.Module, share: float) -> None:
    """Moves the weights of `model` in place by `share` of the way to those of `start`, which have the same names.

    Weights that are equal in both stay what they are, to the last bit.
    """
    start_weights = dict(start.named_parameters())
    for name, trained in model.named_parameters():
        # lerp and not a weighted sum: of two equal numbers it returns exactly that number.
        trained.lerp_(start_weights[name].to(trained), share)
