"""How many inputs each door is tried with: 500 in every run, 20,000 in the slow one, always the same ones.

A failure prints the smallest input that shows it. To try a door harder: ``FUZZ_EXAMPLES=200000 pytest tests/fuzz``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))


def fuzzed(inputs: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A property that holds for `EXAMPLES` inputs; write it above `given`.

    Args:
        inputs: At least so many are in one example, where many cost as much as one.
    """
    return settings(
        max_examples=max(1, EXAMPLES // inputs),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
