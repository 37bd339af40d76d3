"""Activation checkpointing: a layer's graph is kept, or recomputed in backward (Chen et al. 2016, arXiv:1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def maybe_checkpoint(enabled: bool, fn: Callable[..., Tensor], *args: Any) -> Tensor:  # noqa: ANN401
    """Returns ``fn(*args)``; in training, if `enabled`, without its graph, which backward recomputes."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(fn, *args, use_reentrant=False)  # type: ignore[no-any-return]
    return fn(*args)
