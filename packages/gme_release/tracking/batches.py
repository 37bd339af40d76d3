"""MLflow takes a limited number of params, tags or metrics in one call; what is logged is cut into such batches."""

from __future__ import annotations

MAX_PARAMS = 100
"""The most params or tags that ``log_batch`` takes."""
MAX_METRICS = 1000
"""The most metrics that ``log_batch`` takes."""
