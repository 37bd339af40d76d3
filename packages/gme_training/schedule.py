"""The learning rate of a step."""

from __future__ import annotations

import math

from gme_training.config import OptimizerConfig


def rate_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at `step` of `steps`, counted from 0: a linear rise, then linear or cosine decay to 0."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    left = (steps - step) / max(1, steps - warmup + 1)
    return left if config.decay == "linear" else (1 - math.cos(math.pi * left)) / 2
