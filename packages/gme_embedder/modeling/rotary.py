"""Rotary positions, applied: one pass over the states forwards and one backwards. Does not know whose they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Rope = tuple[Tensor, Tensor]
"""Cosines and sines, each [T, 1, head], whose two halves are equal, as in all models of the Qwen family."""


def rotate(states: Tensor, rope: Rope) -> Tensor:
    """Rotary positions on [..., T, heads, head], in the precision of `states` (arXiv:2104.09864, section 3.4.2)."""
    cos, sin = (part.to(states.dtype) for part in rope)
    turned: Tensor = _Rotation.apply(states, cos, sin)  # type: ignore[no-untyped-call]
    return turned


class _Rotation(torch.autograd.Function):
    """The gradient of a rotation is the rotation back, so neither way keeps a copy of the states."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, -sin), None, None


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = states.chunk(2, dim=-1)
    turned = states * cos
    first, second = turned.chunk(2, dim=-1)
    half, _ = sin.chunk(2, dim=-1)
    first.addcmul_(right, half, value=-1)
    second.addcmul_(left, half)
    return turned
