"""Folders that take seconds to make and that nobody changes: made once for all workers of a session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder `name` as `build` filled it; of several workers the first one builds, the others wait for it."""
    session = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker's own folder lies in the session's
        session = session.parent
    folder, finished = session / "shared" / name, session / "shared" / f".{name}.finished"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(session / "shared" / f".{name}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a build that failed left
            folder.mkdir()
            build(folder)
            finished.touch()
    return folder
