"""Rotary position embedding in one pass over the states forward and one backward. Does not know the layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Rope = tuple[Tensor, Tensor]
"""Cosines and sines, each [T, 1, head]; their two halves are equal, as in all models of the Qwen family."""


def rotate(states: Tensor, rope: Rope) -> Tensor:
    """Rotates [..., T, heads, head] in the precision of `states` (arXiv:2104.09864, section 3.4.2)."""
    cos, sin = (part.to(states.dtype) for part in rope)
    rotated: Tensor = _Rotation.apply(states, cos, sin)  # type: ignore[no-untyped-call]
    return rotated


class _Rotation(torch.autograd.Function):
    """The rotation, whose gradient is the inverse rotation: neither forward nor backward saves the states."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(cos, sin)
        return _rotated(states, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, -sin), None, None


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    rotated = states * cos
    # In place on the halves of the product: transformers' `rotate_half` concatenates a copy of the states instead.
    rotated_first, rotated_second = rotated.chunk(2, dim=-1)
    half_sin, _ = sin.chunk(2, dim=-1)
    rotated_first.addcmul_(second, half_sin, value=-1)
    rotated_second.addcmul_(first, half_sin)
    return rotated
