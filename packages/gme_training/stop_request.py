"""SIGTERM as a wish: the step at hand is finished, saved by all ranks alike, and the process ends with status 75."""

from __future__ import annotations

import signal
from types import FrameType

from gme_data.errors import FoundryError

EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again."""


class StopWish:
    """Whether this process was asked to stop. Takes over SIGTERM, so only the main thread may make one.

    A scheduler may tell ranks at different moments, or one alone: they must agree on a step before they act.
    """

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.asked = True


def stopped(step: int, steps: int) -> FoundryError:
    """What a rank raises after it has saved."""
    return FoundryError(
        f"Stopped as asked after step {step} of {steps}; everything up to it is saved.",
        hint="Run the same command again to go on from there.",
        exit_code=EXIT_STOPPED,
    )
