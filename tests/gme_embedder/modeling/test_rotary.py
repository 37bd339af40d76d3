"""Rotary positions: the values of the formula, and gradients that are the ones of finite differences."""

from __future__ import annotations

import pytest
import torch

from gme_embedder.modeling.rotary import rotate


def rope(dtype):
    angles = torch.randn(5, 1, 4, generator=torch.manual_seed(0), dtype=torch.float64).repeat(1, 1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def spelled_out(states, cos, sin):
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-right, left), dim=-1) * sin


@pytest.mark.parametrize("shape", [(5, 3, 8), (2, 5, 3, 8), (0, 5, 1, 8)])
def test_values_are_those_of_the_formula(shape):
    states = torch.randn(shape)
    kept = states.clone()
    torch.testing.assert_close(rotate(states, rope(torch.float32)), spelled_out(states, *rope(torch.float32)))
    torch.testing.assert_close(states, kept, atol=0, rtol=0)


def test_gradients_are_right():
    states = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda part: rotate(part, rope(torch.float64)), states)


def test_the_precision_is_that_of_the_states():
    assert rotate(torch.randn(5, 3, 8).bfloat16(), rope(torch.float32)).dtype == torch.bfloat16
