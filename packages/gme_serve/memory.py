"""Memory given back after large bodies, which the C library would keep for the next ones. Knows no requests."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress

_LARGE = 2**20
_SECONDS = 0.5
"""Until then what a request held is freed, and that of others that came with it."""


class GivenBack:
    """Trims the heap of the process some time after large bodies, once for all that came meanwhile."""

    def __init__(self) -> None:
        self._trim = _trimmer()
        self._due = False

    def after(self, body_bytes: int) -> None:
        """A body of so many bytes is dealt with. Call it on the event loop."""
        if body_bytes >= _LARGE and self._trim and not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(_SECONDS, self._begin)

    def _begin(self) -> None:
        self._due = False
        if self._trim:
            asyncio.get_running_loop().run_in_executor(None, self._trim, 0)


def _trimmer() -> Callable[[int], int] | None:
    """`malloc_trim` of glibc; other C libraries have none, and need none."""
    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return trim
    return None
