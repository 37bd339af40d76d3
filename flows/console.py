"""What a person at the terminal sees of a run: one line when a step starts, one when it ends. Standard error only."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gme_data.steps import Outcome

_NAME_WIDTH = 12
_COUNTS_SHOWN = 6


class StepLine:
    """The two lines of one step."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._write("▸", "")

    def finish(self, outcome: Outcome) -> None:
        """Say what the step made, or that it was there."""
        if outcome.reused:
            self._write("=", "done before, files verified")
        else:
            self._write("✓", f"{self._seconds()} · {_counts(outcome.manifest.counts)}")

    def finish_record(self, summary: str) -> None:
        """Say what was recorded."""
        self._write("✓", f"{self._seconds()} · {summary}")

    def fail(self) -> None:
        """Say that the step failed; why is said once, at the end."""
        self._write("✗", f"failed after {self._seconds()}")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._started:.0f} s"

    def _write(self, mark: str, text: str) -> None:
        sys.stderr.write(f"{mark} {self._name:<{_NAME_WIDTH}} {text}".rstrip() + "\n")
        sys.stderr.flush()


@contextmanager
def announce(name: str) -> Iterator[StepLine]:
    """Frame a step with its lines."""
    line = StepLine(name)
    try:
        yield line
    except BaseException:
        line.fail()
        raise


def quiet_orchestrator() -> None:
    """Keep Prefect's own log off the terminal (its server still gets it): errors are told once, in our words."""
    for name in ("", "prefect", "prefect.flow_runs", "prefect.task_runs", "prefect.flow_engine", "prefect.task_engine"):
        for handler in logging.getLogger(name).handlers:
            if type(handler).__name__ in {"PrefectConsoleHandler", "StreamHandler"}:
                handler.setLevel(logging.CRITICAL + 1)


def _counts(counts: Mapping[str, float]) -> str:
    shown = [f"{value:,.10g} {name.replace('_', ' ')}" for name, value in list(counts.items())[:_COUNTS_SHOWN]]
    return ", ".join(shown)
