"""Wall time, peak memory of all processes, and disk left by a command: ``python benchmarks/measure.py make pipeline``.

Memory is sampled once a second: the sum over the command and all that it started of their proportional set sizes, so
that a page shared by several processes counts once. Disk counts the folders that a run writes, hard links once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

FOLDERS = ("data", "checkpoints", "runs", "reports", "dvc-store", ".dvc")


def main() -> int:
    started = time.monotonic()
    process = subprocess.Popen(sys.argv[1:])
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(psutil.Process(process.pid)))
        time.sleep(1)
    minutes = (time.monotonic() - started) / 60
    print(f"{minutes:.1f} minutes, peak memory {peak / 2**30:.2f} GiB, {disk() / 2**20:.0f} MiB on disk")
    return process.returncode


def memory(root: psutil.Process) -> int:
    """Proportional set size in bytes of a process and all below it; those that end meanwhile count nothing."""
    total = 0
    try:
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def disk() -> int:
    """Bytes in the folders of a run, each inode once."""
    stats = (path.stat() for folder in FOLDERS for path in Path(folder).rglob("*") if path.is_file())
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


if __name__ == "__main__":
    sys.exit(main())
