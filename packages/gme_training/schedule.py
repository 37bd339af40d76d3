"""The learning rate schedule."""

from __future__ import annotations

import math

from gme_training.config import OptimizerConfig


def learning_rate_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Returns the learning rate of `step` of `steps`, counted from 0, as a share of the peak.

    It rises linearly in the warmup and then falls to 0, linearly or along a cosine.
    """
    warmup_steps = max(1, round(config.warmup_ratio * steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    # One more in the denominator: the last step of the warmup has had the peak already.
    remaining = (steps - step) / max(1, steps - warmup_steps + 1)
    return remaining if config.lr_scheduler_type == "linear" else (1 - math.cos(math.pi * remaining)) / 2
