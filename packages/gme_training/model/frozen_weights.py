"""Stores weights that no phase trains in bfloat16, which is half the memory. Knows modules; not the loop."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def store_in_bfloat16(model: nn.Module, excluded: Iterable[Tensor]) -> None:
    """Casts the matrices of `model` to bfloat16 in place, except `excluded`; vectors are small and keep their dtype."""
    excluded_ids = {id(parameter) for parameter in excluded}
    for parameter in model.parameters():
        if parameter.ndim > 1 and id(parameter) not in excluded_ids:
            parameter.data = parameter.data.to(torch.bfloat16)


@torch.no_grad()
def to_float32(model: nn.Module) -> None:
    """Casts all weights back to float32, so that adapters can be merged into them without rounding."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
