"""Messages for the tracker, on disk before they are sent: one message a line, and the offset up to which all were sent.

A line that is torn or damaged, wherever it stands, is skipped and counted. A sender that was killed sends its last
batch again, so messages must bear repetition. Knows nothing of the tracker.
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
from gme_release.tracking.messages import Message, RunStart, decode, encode

LINES = "outbox.jsonl"
"""File of the messages, in the folder of an outbox."""
_HEADER = "run.json"
_SENT = "sent"
_FILES = "files"
_LOGGER = logging.getLogger(__name__)


class OutboxHeader(Frozen):
    """Which run the messages are about; a file of its own, so that it survives the loss of any line."""

    key: str
    """The run's `RunDescription.key`."""
    experiment: str
    """The run's MLflow experiment."""


class _SentOffset(Frozen):
    offset: int


@dataclass(frozen=True, slots=True)
class PendingMessages:
    """The next messages of an outbox to be sent.

    Attributes:
        messages: Those that can be read.
        lost: How many of the lines can't be read.
        end: Offset to pass to `Outbox.mark_sent` when they are sent.
        empty: Whether there was no line at all.
    """

    messages: list[Message]
    lost: int
    end: int
    empty: bool


class Outbox:
    """The messages of one run, in order.

    Args:
        folder: Folder of this outbox alone; it is made if needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / LINES
        self._lines.touch()  # readers need not tell an empty outbox from a missing file

    @property
    def header(self) -> OutboxHeader | None:
        """Returns which run the messages are about; None if neither a message nor the header's file says it."""
        for message in self.messages():  # messages first: they have a checksum, the file has none
            if isinstance(message, RunStart) and message.experiment:
                return OutboxHeader(key=message.key, experiment=message.experiment)
        try:
            return read_json(self.folder / _HEADER, OutboxHeader)
        except (FileNotFoundError, StructureError):
            return None

    def write_header(self, header: OutboxHeader) -> None:
        """Writes the header; a full or missing disk raises OSError."""
        atomic_write(self.folder / _HEADER, header.model_dump_json().encode())

    def append(self, message: Message) -> None:
        """Appends a message; a full or missing disk raises OSError, and nothing of the message stays."""
        with self._lock:
            size_before = self._lines.stat().st_size
            try:
                append_line(self._lines, encode(message))
            except OSError:  # a full disk may have taken a part of the line
                with suppress(OSError):
                    os.truncate(self._lines, size_before)
                raise

    def store_file(self, source: Path, name: str) -> str:
        """Copies a file, since its owner may replace it before it is sent; returns its path relative to the folder."""
        target = self.folder / _FILES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return target.relative_to(self.folder).as_posix()

    def messages(self) -> Iterator[Message]:
        """Yields all messages that can be read, sent or not.

        Raises:
            FoundryError: There is no file of messages.
        """
        for line in self._read_lines(0):
            message = self._decode(line)
            if message is not None:
                yield message

    @property
    def damaged_count(self) -> int:
        """Returns how many lines can't be read; a torn last line counts, since it may lack more than its newline."""
        lines = self._read_lines(0)
        torn = len(self._read_lines(0, torn=True)) - len(lines)
        return sum(self._decode(line) is None for line in lines) + torn

    def pending(self, limit: int) -> PendingMessages:
        """Returns the next messages to be sent, from at most `limit` lines.

        Raises:
            FoundryError: There is no file of messages.
        """
        offset = self._sent_offset()
        lines = self._read_lines(offset)[:limit]
        decoded = [self._decode(line) for line in lines]
        messages = [message for message in decoded if message is not None]
        return PendingMessages(messages, len(decoded) - len(messages), offset + sum(map(len, lines)), not lines)

    def mark_sent(self, offset: int) -> None:
        """Notes that all messages before byte `offset` were sent."""
        atomic_write(self.folder / _SENT, _SentOffset(offset=offset).model_dump_json().encode())

    @property
    def pending_count(self) -> int:
        """Returns the number of lines that were not sent."""
        return len(self._read_lines(self._sent_offset()))

    def remove(self) -> None:
        """Deletes the outbox with all its files."""
        shutil.rmtree(self.folder)

    def _read_lines(self, offset: int, *, torn: bool = False) -> list[bytes]:
        """Returns the lines from byte `offset` on, newlines included.

        A last line without newline may be in the middle of being written; it is returned with `torn` alone.
        """
        with os.fdopen(open_regular(self._lines), "rb") as handle:
            handle.seek(offset)
            *complete, last = handle.read().split(b"\n")
        return [line + b"\n" for line in complete] + ([last] if torn and last else [])

    def _decode(self, line: bytes) -> Message | None:
        try:
            return decode(line.rstrip(b"\n"), str(self._lines))
        except StructureError:
            return None

    def _sent_offset(self) -> int:
        """Returns the offset up to which messages were sent; 0 if unknown, since messages bear repetition."""
        try:
            offset = read_json(self.folder / _SENT, _SentOffset).offset
        except (FileNotFoundError, StructureError):
            return 0
        if not 0 < offset <= self._lines.stat().st_size:
            return 0
        # An offset that does not follow a newline was damaged: it would cut a message in two.
        with os.fdopen(open_regular(self._lines), "rb") as handle:
            handle.seek(offset - 1)
            return offset if handle.read(1) == b"\n" else 0


def outboxes(folder: Path) -> list[Outbox]:
    """Returns every outbox below `folder`, the oldest first; one that can't be read is logged and left alone."""
    readable = []
    for path in sorted(lines.parent for lines in folder.glob(f"*/{LINES}")):
        try:
            outbox = Outbox(path)
            outbox.pending_count  # noqa: B018 - a damaged outbox fails here, and not in the threads that use it
        except (FoundryError, OSError) as error:
            _LOGGER.warning("What waits in %s for the tracker can't be read: %s", path, error)
        else:
            readable.append(outbox)
    return readable
