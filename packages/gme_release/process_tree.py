"""What a run takes of the machine: processor and memory of the whole tree of its processes. Knows no tracker."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil


class ProcessTree:
    """Measures this process and all it started.

    Args:
        workspace: Whose disk is looked at.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._root = psutil.Process()
        self._seconds: dict[int, float] = {}
        self._when = time.monotonic()
        self.measure()

    def measure(self) -> dict[str, float]:
        """Percent of one processor since the last call (200 = two busy ones), resident memory, processes, free disk."""
        seconds, memory = {}, 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    seconds[process.pid] = times.user + times.system
                    memory += process.memory_info().rss
            except psutil.Error:
                continue  # it ended just now
        now = time.monotonic()
        used = sum(value - self._seconds.get(pid, 0.0) for pid, value in seconds.items())
        elapsed, self._seconds, self._when = max(now - self._when, 1e-3), seconds, now
        return {
            "system/cpu_percent_of_one": round(100 * max(used, 0.0) / elapsed, 1),
            "system/memory_gigabytes": round(memory / 1e9, 3),
            "system/processes": len(seconds),
            "system/disk_free_gigabytes": round(shutil.disk_usage(self._workspace).free / 1e9, 2),
        }
