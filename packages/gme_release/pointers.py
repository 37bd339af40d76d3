"""Pointer files that are taken back where the bytes they name did not arrive. Knows no DVC beyond ``<folder>.dvc``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gme_data.journal import atomic_write

_BEFORE = Path("runs/locks/pointers-before.json")


@contextmanager
def pointers_kept(workspace: Path, folders: Sequence[str]) -> Iterator[None]:
    """Give the pointers of `folders` their former text if the block fails, or if a process was killed inside it before.

    The caller holds the lock of the one writer.
    """
    journal = workspace / _BEFORE
    _restore(workspace, journal)
    before = {folder: _text(workspace / f"{folder}.dvc") for folder in folders}
    journal.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(journal, json.dumps(before).encode())
    try:
        yield
    except BaseException:
        _restore(workspace, journal)
        raise
    journal.unlink()


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _restore(workspace: Path, journal: Path) -> None:
    if not journal.exists():
        return
    for folder, text in json.loads(journal.read_text(encoding="utf-8")).items():
        pointer = workspace / f"{folder}.dvc"
        if text is None:
            pointer.unlink(missing_ok=True)
        else:
            atomic_write(pointer, text.encode())
    journal.unlink()
