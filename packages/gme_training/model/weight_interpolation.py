"""Between what a stage started from and what it learned: fine-tuning forgets, and the straight line forgets less.

    saved = (1 - share) * trained + share * start

(WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903, section 3.) Knows modules; not the loop.
"""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def blend(model: nn.Module, start: nn.Module, share: float) -> None:
    """Move the weights of `model` in place by `share` of the way to those of `start`, of the same names.

    Weights that are equal in both stay what they are, to the last bit.
    """
    first = dict(start.named_parameters())
    for name, trained in model.named_parameters():
        trained.lerp_(first[name].to(trained), share)
