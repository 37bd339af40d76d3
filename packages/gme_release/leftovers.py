"""Files that killed processes left half written in a workspace: removed by whoever works in it next.

Each has the number of its process in its name. Locks are none of them: a lock file stays, since the kernel frees the
lock with its holder, and who removed the file could take it from under a process that has just opened it.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from pathlib import Path

import psutil

_PLACES = (
    ".*.part",
    ".dvc/.*.part",
    "dist/.part-*",
    "metrics/.*.part",
    "runs/locks/.*.part",
    "runs/mlflow/.*.part",
    "runs/models/.*.part",
    "runs/tracking/*/.*.part",
)
_PROCESS = re.compile(r"(?:\.(\d+)(?:-\d+)?\.part|\.part-(\d+)-\w+)$")
_QUIET_SECONDS = 60.0
"""In another container a process with the same files may live under a number that is unknown here."""
_LOGGER = logging.getLogger(__name__)


def sweep(workspace: Path) -> list[Path]:
    """Remove what dead processes left half written; returns it."""
    paths = [path for place in _PLACES for path in sorted(workspace.glob(place)) if _is_abandoned(path)]
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        _LOGGER.info("Removed what a killed process left: %s", path)
    return paths


def _is_abandoned(path: Path) -> bool:
    found = _PROCESS.search(path.name)
    if found is None or psutil.pid_exists(int(found[1] or found[2])):
        return False
    try:
        newest = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except OSError:  # somebody else tidies up
        return False
    return time.time() - newest > _QUIET_SECONDS
