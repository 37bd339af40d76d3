"""What is to be told to the tracker, on disk before it is sent: one message a line, and how far it was sent.

A line that is torn or damaged, wherever it stands, is passed over and counted. A killed sender sends its last batch
again, so what is sent must bear repetition. Knows nothing of the tracker.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.events import append_line
from gme_data.journal import atomic_write
from gme_data.settings import Frozen
from gme_data.structured import StructureError, open_regular, read_json
from gme_release.messages import Begin, Message, decode, encode

LINES = "outbox.jsonl"
_HEADER = "run.json"
_SENT = "sent"
_FILES = "files"
_LOGGER = logging.getLogger(__name__)


class Header(Frozen):
    """Whose messages these are: kept apart from them, so that no lost line makes the others homeless."""

    key: str
    """See `RunPlan.key`."""
    experiment: str
    """MLflow experiment."""


class _Sent(Frozen):
    offset: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Some messages of an outbox.

    Attributes:
        messages: Those that can be read.
        lost: Lines among them that can't.
        end: What to pass to `mark_sent` when they are sent.
        empty: Whether there was no line at all.
    """

    messages: list[Message]
    lost: int
    end: int
    empty: bool


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

    @property
    def header(self) -> Header | None:
        """Whose messages these are; None if nothing says so any more."""
        for message in self.messages():  # which have a checksum, so these first
            if isinstance(message, Begin) and message.experiment:
                return Header(key=message.key, experiment=message.experiment)
        try:
            return read_json(self.folder / _HEADER, Header)
        except (FileNotFoundError, StructureError):
            return None

    def describe(self, header: Header) -> None:
        """Note whose messages these are; a disk that is full or gone raises OSError."""
        atomic_write(self.folder / _HEADER, header.model_dump_json().encode())

    def put(self, message: Message) -> None:
        """Append a message; a disk that is full or gone raises OSError, and nothing of it stays."""
        with self._lock:
            before = self._lines.stat().st_size
            try:
                append_line(self._lines, encode(message))
            except OSError:
                with suppress(OSError):
                    os.truncate(self._lines, before)
                raise

    def keep(self, source: Path, name: str) -> str:
        """Copy a file, since its owner may replace it before it is sent; returns its name inside the folder."""
        target = self.folder / _FILES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return target.relative_to(self.folder).as_posix()

    def messages(self) -> Iterator[Message]:
        """All messages that can be read, sent or not.

        Raises:
            FoundryError: There is no file of messages where it should be.
        """
        for line in self._read(0):
            message = self._decoded(line)
            if message is not None:
                yield message

    @property
    def damaged(self) -> int:
        """How many lines can't be read, the last one included if it is torn: it may lack more than its end."""
        whole = self._read(0)
        return sum(self._decoded(line) is None for line in whole) + len(self._read(0, torn=True)) - len(whole)

    def waiting(self, most: int) -> Batch:
        """The next messages, at most `most` lines.

        Raises:
            FoundryError: See `messages`.
        """
        offset = self._offset()
        lines = self._read(offset)[:most]
        read = [self._decoded(line) for line in lines]
        messages = [message for message in read if message is not None]
        return Batch(messages, len(read) - len(messages), offset + sum(map(len, lines)), not lines)

    def mark_sent(self, offset: int) -> None:
        """What lies before `offset` bytes need not be sent again."""
        atomic_write(self.folder / _SENT, _Sent(offset=offset).model_dump_json().encode())

    @property
    def count_waiting(self) -> int:
        """Lines that were not sent."""
        return len(self._read(self._offset()))

    def remove(self) -> None:
        """Delete the outbox with all that is in it."""
        shutil.rmtree(self.folder)

    def _read(self, offset: int, *, torn: bool = False) -> list[bytes]:
        """Lines from `offset` on, ends included; a last one without its end may still be being written."""
        with os.fdopen(open_regular(self._lines), "rb") as handle:
            handle.seek(offset)
            *whole, last = handle.read().split(b"\n")
        return [line + b"\n" for line in whole] + ([last] if torn and last else [])

    def _decoded(self, line: bytes) -> Message | None:
        try:
            return decode(line.rstrip(b"\n"), str(self._lines))
        except StructureError:
            return None

    def _offset(self) -> int:
        """How far it was sent; from the start where that is not known, since told twice it is there once."""
        try:
            offset = read_json(self.folder / _SENT, _Sent).offset
        except (FileNotFoundError, StructureError):
            return 0
        if not 0 < offset <= self._lines.stat().st_size:
            return 0
        with os.fdopen(open_regular(self._lines), "rb") as handle:
            handle.seek(offset - 1)
            return offset if handle.read(1) == b"\n" else 0


def outboxes(home: Path) -> list[Outbox]:
    """Every outbox below `home`, the oldest first; one whose files are no files is told and left alone."""
    found = []
    for folder in sorted(path.parent for path in home.glob(f"*/{LINES}")):
        try:
            outbox = Outbox(folder)
            outbox.count_waiting  # noqa: B018 - looked at here, so that nobody behind stumbles over it
        except (FoundryError, OSError) as error:
            _LOGGER.warning("What waits in %s for the tracker can't be read: %s", folder, error)
        else:
            found.append(outbox)
    return found
