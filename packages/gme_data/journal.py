"""A journal of finished units inside a long step: what is in it is never done again.

Each unit is one file under a hidden folder of the staging folder, written whole by a rename, so a kill at any instant
leaves either the unit or nothing. The folder goes when the step is published.
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
        """The recorded result of `unit`, or the result of `run()`, recorded before it is returned.

        Args:
            unit: Its name.
            run: Does it.
            kind: What the result is; a record of anything else is damaged, and the unit is done again.
        """
        path = self._folder / f"{unit}.json"
        try:
            return read_json(path, kind)
        except FileNotFoundError:
            pass
        except StructureError:
            path.unlink()  # damaged: the unit is done again
        value = run()
        atomic_write(path, to_json(value))
        return value


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; on disk, with its name, when the call returns."""
    # Two processes may write one file at the same time.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Put the names in a folder on disk: after a rename, a power cut could bring the old name back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Put the content of a file on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Put all files below a folder, and their names, on disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            fsync_file(Path(place) / name)
        fsync_folder(Path(place))
