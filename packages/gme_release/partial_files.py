"""Partial files, which killed processes left in a workspace: removed by the next process that works in it.

Each has the id of its process in its name. Lock files are not removed: the kernel frees a lock when its holder dies,
and removing the file could take it from under a process that has just opened it.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from pathlib import Path

import psutil

_PATTERNS = (
    ".*.part",
    ".dvc/.*.part",
    "dist/.part-*",
    "metrics/.*.part",
    "runs/locks/.*.part",
    "runs/mlflow/.*.part",
    "runs/models/.*.part",
    "runs/tracking/*/.*.part",
)
# `.NAME.PID.part` and `.NAME.PID-THREAD.part` are files, `.part-PID-RANDOM` is the scratch folder of a release.
_PROCESS_ID = re.compile(r"(?:\.(\d+)(?:-\d+)?\.part|\.part-(\d+)-\w+)$")
_MIN_AGE_SECONDS = 60.0
"""A younger file is left alone: a process in another container may be writing it under an id that is unknown here."""
_LOGGER = logging.getLogger(__name__)


def remove_partial_files(workspace: Path) -> list[Path]:
    """Removes the partial files and folders of dead processes, and returns them."""
    paths = [path for pattern in _PATTERNS for path in sorted(workspace.glob(pattern)) if _is_abandoned(path)]
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        _LOGGER.info("Removed what a killed process left: %s", path)
    return paths


def _is_abandoned(path: Path) -> bool:
    match = _PROCESS_ID.search(path.name)
    if match is None or psutil.pid_exists(int(match[1] or match[2])):
        return False
    try:
        newest = max(file.lstat().st_mtime for file in (path, *path.rglob("*")))
    except OSError:  # another process is removing it
        return False
    return time.time() - newest > _MIN_AGE_SECONDS
