"""Model against baseline, query by query: whether a difference is more than the luck of the draw of queries."""

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
    """95 % interval of the mean difference `first` - `second` of two per-query files of the same task.

    Both systems answered the same queries, so the queries are drawn in pairs; that is narrower than what the two
    systems' own intervals suggest.
    """
    differences = _values(first) - _values(second)
    return bootstrap_interval(differences, resamples=_RESAMPLES, seed=_SEED)


def _values(path: Path) -> Floats:
    """[q] headline values; query files are sorted by query id."""
    return np.array([row["value"] for row in read_rows(path, QUERY_SCHEMA)])
