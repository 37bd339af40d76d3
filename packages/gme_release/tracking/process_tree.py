"""What a run uses of the machine: CPU time and memory of its whole tree of processes. Knows no tracker."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil


class ProcessTree:
    """Measures this process and all that it started.

    Args:
        workspace: The folder whose disk is measured.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._root = psutil.Process()
        self._seconds: dict[int, float] = {}
        self._measured_at = time.monotonic()
        self.measure()

    def measure(self) -> dict[str, float]:
        """Returns metric names with values.

        They are the load since the last call in percent of one core (200 means two busy cores), resident memory and
        free disk space in 10^9 bytes, and the number of processes.
        """
        seconds, memory = {}, 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    seconds[process.pid] = times.user + times.system
                    memory += process.memory_info().rss
            except psutil.Error:
                continue  # the process ended between listing and measuring
        now = time.monotonic()
        # Processes that ended are left out; an id that was given to a new process makes its difference negative.
        used = sum(value - self._seconds.get(pid, 0.0) for pid, value in seconds.items())
        elapsed, self._seconds, self._measured_at = max(now - self._measured_at, 1e-3), seconds, now
        return {
            "system/cpu_percent_of_one": round(100 * max(used, 0.0) / elapsed, 1),
            "system/memory_gigabytes": round(memory / 1e9, 3),
            "system/processes": len(seconds),
            "system/disk_free_gigabytes": round(shutil.disk_usage(self._workspace).free / 1e9, 2),
        }
