"""CPU seconds of things that take turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def interleaved_minimum(runs: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """CPU seconds of each, the least of `rounds` in which they take turns."""
    best = [float("inf")] * len(runs)
    for _ in range(rounds):
        for number, run in enumerate(runs):
            started = time.process_time()
            run()
            best[number] = min(best[number], time.process_time() - started)
    return best
