"""SIGTERM as a request to stop: the current step is finished and saved by all ranks, and the process ends with 75."""

from __future__ import annotations

import signal
from types import FrameType

from gme_data.errors import FoundryError

EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again."""


class StopRequest:
    """Whether this process was asked to stop. Takes over SIGTERM, so only the main thread may create one.

    A scheduler may signal the ranks at different moments, or only one of them, so the ranks have to agree on a step
    before they stop.
    """

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, _signal: int, _frame: FrameType | None) -> None:
        self.received = True


def stopped_error(step: int, steps: int) -> FoundryError:
    """Returns the error that a rank raises after it has saved the step at which it stops."""
    return FoundryError(
        f"Stopped as asked after step {step} of {steps}; everything up to it is saved.",
        hint="Run the same command again to go on from there.",
        exit_code=EXIT_STOPPED,
    )
