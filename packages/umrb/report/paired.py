"""Paired comparison of model and baseline: whether a difference exceeds the sampling noise of the queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gme_data.parquet import read_rows
from umrb.intervals import bootstrap_interval
from umrb.metrics import Floats
from umrb.scoring.run_files import QUERY_SCHEMA

_RESAMPLES = 1000
_SEED = 0


def difference_interval(first: Path, second: Path) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `first` - `second`, two per-query files of the same task.

    This is a paired bootstrap: both systems answered the same queries, so the interval is narrower than those of the
    two systems suggest.
    """
    differences = _values(first) - _values(second)
    return bootstrap_interval(differences, resamples=_RESAMPLES, seed=_SEED)


def _values(path: Path) -> Floats:
    """[q] headline values of a per-query file, whose rows are sorted by query id."""
    return np.array([row["value"] for row in read_rows(path, QUERY_SCHEMA)])
