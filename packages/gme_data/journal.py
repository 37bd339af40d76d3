"""A journal of finished units inside a long step: what is in it is never done again.

Each unit is one file under a hidden folder of the staging folder, written whole by a rename, so a kill at any instant
leaves either the unit or nothing. The folder goes when the step is published.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Journal:
    """Results of units by name, as JSON values.

    Args:
        staging: The staging folder of the step.
        name: One journal per name; letters, digits and dashes.
    """

    def __init__(self, staging: Path, name: str) -> None:
        self._folder = staging / f".journal-{name}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))

    def get_or_run(self, unit: str, run: Callable[[], Any]) -> Any:  # noqa: ANN401 - JSON values
        """The recorded result of `unit`, or the result of `run()`, recorded before it is returned."""
        path = self._folder / f"{unit}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        value = run()
        atomic_write(path, json.dumps(value, ensure_ascii=False).encode())
        return value


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; on disk when the call returns."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
