"""Activation checkpointing: a layer's graph is kept, or built again when gradients come back (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def again_on_the_way_back(checkpointed: bool, function: Callable[..., Tensor], *given: Any) -> Tensor:  # noqa: ANN401
    """`function` of what is `given`, its graph kept or, if `checkpointed`, built again when gradients come back."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(function, *given, use_reentrant=False)  # type: ignore[no-any-return]
    return function(*given)
