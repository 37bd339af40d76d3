"""Resized pictures by their id, the least recently used dropped first. Threads may share one; a copy starts empty."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class PixelCache:
    """At most so many bytes of pixels, but always the newest picture."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._pixels: OrderedDict[str, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PixelCache], tuple[int]]:
        return PixelCache, (self._limit,)

    def peek(self, key: str | None) -> Pixels | None:
        """The pixels of `key` if they are here."""
        with self._lock:
            return self._pixels.get(key) if key is not None else None

    def get(self, key: str, make: Callable[[], Pixels]) -> Pixels:
        """The pixels of `key`, made if they are not here; one and the same array as long as they are."""
        with self._lock:
            if key in self._pixels:
                self._pixels.move_to_end(key)
                return self._pixels[key]
        pixels = make()  # outside of the lock: two threads may both make it, and the first one's array is kept
        with self._lock:
            if key not in self._pixels:
                self._pixels[key] = pixels
                self._held += pixels.nbytes
            while self._held > self._limit and len(self._pixels) > 1:
                self._held -= self._pixels.popitem(last=False)[1].nbytes
            return self._pixels.get(key, pixels)
