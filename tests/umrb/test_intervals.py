from __future__ import annotations

import numpy as np
import pytest

from umrb.intervals import bootstrap_interval


def test_matches_the_normal_interval_of_a_proportion() -> None:
    values = np.array([1.0] * 120 + [0.0] * 280)
    low, high = bootstrap_interval(values, resamples=4000, seed=1)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.006)


def test_same_seed_same_interval_and_no_spread_for_constants() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, resamples=200, seed=3) == bootstrap_interval(values, resamples=200, seed=3)
    assert bootstrap_interval(np.ones(9), resamples=100, seed=0) == (1.0, 1.0)


def test_no_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval(np.array([]), resamples=100, seed=0)
