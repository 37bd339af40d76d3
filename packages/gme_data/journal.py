"""A journal of finished units inside a long step, which a rerun does not repeat.

Each unit is one file in a hidden folder of the staging folder, written by a rename, so that a kill at any instant
leaves the complete unit or nothing. The folder is removed when the step is published.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from gme_data.structured import StructureError, read_json


class Journal:
    """Results of units by name: JSON values, or dataclasses of them.

    Args:
        staging: The staging folder of the step.
        name: One journal per name; letters, digits and dashes.
    """

    def __init__(self, staging: Path, name: str) -> None:
        self._folder = staging / f".journal-{name}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))

    def get_or_run(self, unit: str, run: Callable[[], Any], kind: type[Any] = object) -> Any:  # noqa: ANN401
        """Returns the recorded result of `unit`, or the result of `run()`, recorded before it is returned.

        Args:
            unit: Its name.
            run: Does it.
            kind: Type of the result; a file of another type counts as damaged, and the unit is run again.
        """
        path = self._folder / f"{unit}.json"
        try:
            return read_json(path, kind)
        except FileNotFoundError:
            pass
        except StructureError:
            path.unlink()  # damaged, so the unit is run again
        value = run()
        atomic_write(path, to_json(value))
        return value


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all; it is on disk, with its name, when the call returns."""
    # The temporary name is unique, since two processes may write one file at the same time.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    except BaseException:  # also for KeyboardInterrupt, so that no partial file stays
        part.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Syncs the names in a folder to disk: without it, a power cut after a rename could bring the old name back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Syncs the content of a file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Syncs all files below a folder, and their names, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            fsync_file(Path(parent) / name)
        fsync_folder(Path(parent))
