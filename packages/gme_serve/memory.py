"""Returns freed memory to the system after large bodies, which the C library would keep. Knows no requests."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress

_LARGE_BYTES = 2**20
_DELAY_SECONDS = 0.5
"""After this delay the memory of a request, and of others that came with it, is freed."""


class HeapTrimmer:
    """Trims the heap of the process some time after large bodies, once for all that arrived meanwhile."""

    def __init__(self) -> None:
        self._trim = _trimmer()
        self._due = False

    def after(self, body_bytes: int) -> None:
        """Schedule a trim after a request with a body of so many bytes; must be called on the event loop."""
        if body_bytes >= _LARGE_BYTES and self._trim and not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(_DELAY_SECONDS, self._begin)

    def _begin(self) -> None:
        self._due = False
        if self._trim:
            asyncio.get_running_loop().run_in_executor(None, self._trim, 0)


def _trimmer() -> Callable[[int], int] | None:
    """Return `malloc_trim` of glibc; None with other C libraries, which don't have it."""
    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return trim
    return None
