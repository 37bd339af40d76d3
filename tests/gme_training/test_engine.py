"""Gradients arrive at the parameters as they were handed over."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gme_training.engine import optimizer_step


class Plain:
    """The part of DeepSpeed's engine that `optimizer_step` uses, by torch alone."""

    def __init__(self, scale: float) -> None:
        self.module = nn.Linear(3, 2)
        self.module.trained = lambda: list(self.module.parameters())
        self.scale, self.steps = scale, 0

    def zero_optimization(self) -> bool:
        return False

    def backward(self, loss: torch.Tensor) -> None:
        (loss * self.scale).backward()

    def step(self) -> None:
        self.steps += 1


@pytest.mark.parametrize("scale", [1.0, 8.0])  # a loss may be scaled on its way
def test_every_parameter_gets_its_gradient_and_zero_where_there_is_none(scale: float):
    engine = Plain(scale)
    weight = torch.tensor([[1.0, -2.0, 2.0], [0.0, 4.0, 0.5]])
    norm = optimizer_step(engine, [weight, None])
    assert torch.equal(engine.module.weight.grad, weight * scale)
    assert torch.equal(engine.module.bias.grad, torch.zeros(2))
    assert norm == pytest.approx(float(weight.norm()) * scale)
    assert engine.steps == 1
