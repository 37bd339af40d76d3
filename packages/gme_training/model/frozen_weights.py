"""Weights that nobody trains, in half the memory. Knows modules; not the loop."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def to_half(model: nn.Module, others: Iterable[Tensor]) -> None:
    """Keep the matrices of `model` in bfloat16, in place, except `others`; vectors are small and stay as they are."""
    spared = {id(parameter) for parameter in others}
    for parameter in model.parameters():
        if parameter.ndim > 1 and id(parameter) not in spared:
            parameter.data = parameter.data.to(torch.bfloat16)


@torch.no_grad()
def to_float32(model: nn.Module) -> None:
    """All of its weights in float32 again, so that adapters can be folded into them without rounding."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
