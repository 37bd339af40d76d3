from __future__ import annotations

from itertools import pairwise

import pytest

from gme_training.config import OptimizerConfig
from gme_training.schedule import learning_rate_factor


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_rate_rises_to_the_peak_and_falls_towards_zero(decay):
    config = OptimizerConfig(warmup_ratio=0.1, lr_scheduler_type=decay)
    factors = [learning_rate_factor(step, 100, config) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == factors[9] == 1
    assert all(a > b for a, b in pairwise(factors[9:]))
    assert 0 < factors[-1] < 0.02


def test_a_phase_of_one_step_trains_at_the_peak():
    assert learning_rate_factor(0, 1, OptimizerConfig()) == 1
