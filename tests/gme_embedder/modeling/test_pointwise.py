"""Norm and gate equal the plain formulas, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.activations import ACT2FN

from gme_embedder.modeling.pointwise import gated, rms_norm

EPSILON = 1e-6


def plain_norm(states, weight):
    return states / (states.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def gradients(outcome, inputs, seed=3):
    torch.manual_seed(seed)
    return torch.autograd.grad(outcome, inputs, torch.randn_like(outcome), allow_unused=True)


@pytest.mark.parametrize("shape", [(7, 16), (2, 5, 3, 16), (1, 16), (0, 16)])
def test_the_norm_equals_its_formula(shape):
    torch.manual_seed(1)
    inputs = (torch.randn(shape, requires_grad=True), torch.randn(shape[-1], requires_grad=True))
    ours, theirs = rms_norm(*inputs, EPSILON), plain_norm(*inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(ours, inputs), gradients(theirs, inputs), rtol=1e-4, atol=1e-5)


def test_rows_of_zeros_stay_finite():
    states, weight = torch.zeros(2, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    outcome = rms_norm(states, weight, EPSILON)
    assert all(part.isfinite().all() for part in (outcome, *gradients(outcome, (states, weight))))


@pytest.mark.parametrize("asks", [(True, False), (False, True)], ids=["states alone", "weight alone"])
def test_only_what_asks_gets_a_gradient(asks):
    inputs = tuple(torch.randn(4, 8)[row].requires_grad_(ask) for row, ask in zip((slice(4), 0), asks, strict=True))
    wanted = [one for one, ask in zip(inputs, asks, strict=True) if ask]
    found = gradients(rms_norm(*inputs, EPSILON), wanted)
    torch.testing.assert_close(found, gradients(plain_norm(*inputs), wanted), rtol=1e-4, atol=1e-5)


def test_half_precision_is_computed_in_float32():
    states, weight = torch.randn(9, 64, dtype=torch.bfloat16), torch.randn(64)
    assert torch.equal(rms_norm(states, weight, EPSILON), plain_norm(states.float(), weight).bfloat16())


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_the_gate_equals_its_formula(name):
    torch.manual_seed(2)
    inputs = tuple(torch.randn(5, 12, requires_grad=True) for _ in range(2))
    theirs = {"silu": functional.silu, "gelu": functional.gelu}[name](inputs[0]) * inputs[1]
    expected = gradients(theirs, inputs)
    ours = gated(ACT2FN[name], *(one.clone() for one in inputs))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients(ours, inputs), expected, rtol=1e-5, atol=1e-6)


def test_a_second_way_back_is_an_error_and_not_a_wrong_gradient():
    inputs = tuple(torch.randn(5, 12, requires_grad=True) for _ in range(2))
    outcome = gated(ACT2FN["silu"], *(one.clone() for one in inputs)).sum()
    torch.autograd.grad(outcome, inputs, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(outcome, inputs)
