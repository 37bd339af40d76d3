"""A run in the terminal: one line when a step starts, one when it ends, on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gme_data.steps import Outcome

_NAME_WIDTH = 12
_MAX_COUNTS = 6


class StepLine:
    """Prints the two lines of one step."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._write("▸", "")

    def finish(self, outcome: Outcome) -> None:
        """Prints the counts of the step, or that it was done before."""
        if outcome.reused:
            self._write("=", "done before, files verified")
        else:
            self._write("✓", f"{self._seconds()} · {_counts(outcome.manifest.counts)}")

    def finish_record(self, summary: str) -> None:
        """Prints what was recorded."""
        self._write("✓", f"{self._seconds()} · {summary}")

    def fail(self) -> None:
        """Prints that the step failed; the reason is printed once, at the end of the command."""
        self._write("✗", f"failed after {self._seconds()}")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._started:.0f} s"

    def _write(self, mark: str, text: str) -> None:
        sys.stderr.write(f"{mark} {self._name:<{_NAME_WIDTH}} {text}".rstrip() + "\n")
        sys.stderr.flush()


@contextmanager
def announce_step(name: str) -> Iterator[StepLine]:
    """Prints that a step starts, and yields the line to finish it with."""
    line = StepLine(name)
    try:
        yield line
    except BaseException:
        line.fail()
        raise


def quiet_orchestrator() -> None:
    """Keeps Prefect's log off the terminal, so that `gme` alone prints an error; its server still gets the log."""
    for name in ("", "prefect", "prefect.flow_runs", "prefect.task_runs", "prefect.flow_engine", "prefect.task_engine"):
        for handler in logging.getLogger(name).handlers:
            if type(handler).__name__ in {"PrefectConsoleHandler", "StreamHandler"}:
                handler.setLevel(logging.CRITICAL + 1)


def _counts(counts: Mapping[str, float]) -> str:
    texts = [f"{value:,.10g} {name.replace('_', ' ')}" for name, value in list(counts.items())[:_MAX_COUNTS]]
    return ", ".join(texts)
