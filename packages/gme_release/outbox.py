"""What is to be told to the tracker, on disk before it is sent: one JSON object a line, and how far it was sent.

A killed writer leaves at most a torn last line, which is cut off; a killed sender sends its last batch again, so what
is sent must bear repetition. Knows nothing of the tracker.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gme_data.journal import atomic_write

Message = dict[str, Any]
LINES = "outbox.jsonl"
_SENT = "sent"
_FILES = "files"


class Outbox:
    """The messages of one run, in order.

    Args:
        folder: Its own folder; made if needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / LINES
        self._lines.touch()
        _cut_torn_line(self._lines)

    def put(self, message: Mapping[str, Any]) -> None:
        """Append a message; a disk that is full or gone raises OSError."""
        line = json.dumps(message, ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock, self._lines.open("a", encoding="utf-8") as handle:
            handle.write(line)

    def keep(self, source: Path, name: str) -> str:
        """Copy a file, since its owner may replace it before it is sent; returns its name inside the folder."""
        target = self.folder / _FILES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return target.relative_to(self.folder).as_posix()

    def messages(self) -> Iterator[Message]:
        """All messages, sent or not."""
        for line in self._lines.read_bytes().splitlines():
            yield json.loads(line)

    def waiting(self, most: int) -> tuple[list[Message], int]:
        """The next messages, at most `most`, and the offset to pass to `mark_sent` when they are sent."""
        with self._lines.open("rb") as handle:
            handle.seek(self._offset())
            lines: list[bytes] = []
            while len(lines) < most and (line := handle.readline()).endswith(b"\n"):
                lines.append(line)
        return [json.loads(line) for line in lines], self._offset() + sum(map(len, lines))

    def mark_sent(self, offset: int) -> None:
        """What lies before `offset` bytes need not be sent again."""
        atomic_write(self.folder / _SENT, str(offset).encode())

    @property
    def count_waiting(self) -> int:
        """Messages that were not sent."""
        return self._lines.read_bytes().count(b"\n", self._offset())

    def remove(self) -> None:
        """Delete the outbox with all that is in it."""
        shutil.rmtree(self.folder)

    def _offset(self) -> int:
        path = self.folder / _SENT
        return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def outboxes(home: Path) -> list[Outbox]:
    """Every outbox below `home`, the oldest first."""
    folders = [path.parent for path in home.glob(f"*/{LINES}")]
    return [Outbox(folder) for folder in sorted(folders, key=lambda folder: folder.name)]


def _cut_torn_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("rb+") as handle:
            handle.truncate(whole)
