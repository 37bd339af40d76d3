"""Confidence intervals of means over queries, by a seeded percentile bootstrap. Knows only arrays of values."""

from __future__ import annotations

import numpy as np

from umrb.metrics import Floats

_VALUES_PER_BLOCK = 4 * 2**20
"""So many values are drawn at once, which bounds memory to some 64 MiB."""


def bootstrap_interval(values: Floats, *, resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of `values` [q] under resampling of the queries with replacement (Efron 1979).

    Args:
        values: One value per query.
        resamples: How many times q queries are drawn.
        seed: Seed of the draws; equal seeds and values give equal intervals.
        level: Coverage of the interval.

    Returns:
        ``(low, high)`` in the unit of `values`.

    Raises:
        ValueError: There are no values.
    """
    if len(values) == 0:
        raise ValueError("no values to resample")
    rng = np.random.default_rng(seed)
    rows = max(1, _VALUES_PER_BLOCK // len(values))
    means = [
        values[rng.integers(0, len(values), (min(rows, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    # Percentiles of the resampled means, without a correction for bias.
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
