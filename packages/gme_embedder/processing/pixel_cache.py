"""A cache of resized pictures by id, least recently used out first. Threads may share one; a copy starts empty."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class PixelCache:
    """Keeps at most `limit` bytes of pixels, but always the newest picture."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._pixels: OrderedDict[str, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PixelCache], tuple[int]]:
        return PixelCache, (self._limit,)

    def peek(self, key: str | None) -> Pixels | None:
        """Returns the pixels of `key` if they are cached; they do not become the most recently used."""
        with self._lock:
            return self._pixels.get(key) if key is not None else None

    def get(self, key: str, make: Callable[[], Pixels]) -> Pixels:
        """Returns the pixels of `key`, from `make` if they are not cached; the same array while they are cached."""
        with self._lock:
            if key in self._pixels:
                self._pixels.move_to_end(key)
                return self._pixels[key]
        # Outside of the lock, for decoding is slow. Two threads may both decode it; the first array stays, since the
        # batch tells equal pictures by the identity of their arrays.
        pixels = make()
        with self._lock:
            if key not in self._pixels:
                self._pixels[key] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > self._limit and len(self._pixels) > 1:
                self._bytes -= self._pixels.popitem(last=False)[1].nbytes
            return self._pixels.get(key, pixels)
