"""Answers of language models and search services by the digest of their request: what was paid for once is kept.

The journal is a folder of SQLite files, one per process: each adds to its own file and reads all. An answer is
recorded before it is used, so a process that is killed loses the requests in flight and no other. Knows keys and JSON
values only.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gme_data.errors import FoundryError
from gme_data.structured import StructureError, parse_json

T = TypeVar("T")
log = logging.getLogger(__name__)
_MAX_KEYS_PER_STATEMENT = 500
"""SQLite allows 999 variables in a statement, in builds before 3.32."""


class RequestJournal:
    """The recorded answers of a folder.

    Args:
        folder: The folder outlives the run; several runs, configurations and models share it.
        process: Names the file that this process adds to; no two processes may share one.

    Raises:
        FoundryError: A file of the folder is no journal.
    """

    def __init__(self, folder: Path, process: str = "0") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._writable = self._open(folder / f"answers-{process}.sqlite")
        others = sorted(path for path in folder.glob("answers-*.sqlite") if path.stem != f"answers-{process}")
        self._all = [self._writable, *map(self._open, others)]

    def __len__(self) -> int:
        counts = (file.execute("SELECT COUNT(*) FROM answers").fetchone() for file in self._all)
        return sum(int(count) for (count,) in counts)

    def get(self, keys: Sequence[str], kind: type[T]) -> dict[str, T]:
        """Returns the recorded answers to `keys`, as `kind`; a damaged answer counts as missing.

        Raises:
            FoundryError: A file is damaged.
        """
        answers: dict[str, T] = {}
        damaged = 0
        for start in range(0, len(keys), _MAX_KEYS_PER_STATEMENT):
            chunk = list(keys[start : start + _MAX_KEYS_PER_STATEMENT])
            marks = ",".join("?" * len(chunk))
            for file in self._all:
                with self._explained_errors():
                    rows = file.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", chunk)  # noqa: S608 - marks only
                    for key, value in rows.fetchall():
                        try:
                            answers[key.decode()] = parse_json(value, kind, where=str(self._folder))
                        except StructureError:
                            damaged += 1
        if damaged:
            log.warning("%d answer(s) in %s are damaged and asked for again", damaged, self._folder)
        return answers

    def put(self, key: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Records an answer, which survives a kill of the process once the call has returned.

        Raises:
            FoundryError: The file is damaged, or the disk is full.
        """
        with self._explained_errors():
            self._writable.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(value, ensure_ascii=False))
            )

    def close(self) -> None:
        """Closes all files."""
        for file in self._all:
            file.close()

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        """Turns the errors of SQLite into one that names the folder and says what to do."""
        try:
            yield
        except (sqlite3.DatabaseError, ValueError) as error:
            raise FoundryError(
                f"{self._folder}: the journal of answers can't be used: {error}",
                hint="If the disk is not full, move the damaged file away; its answers will be asked for again.",
            ) from error

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=60)
            connection.text_factory = (
                bytes  # text that is not UTF-8 would raise, and cost all answers instead of the damaged one
            )
            # A write-ahead log without a sync at each commit survives the death of the process, if not of the machine.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            raise FoundryError(
                f"{path} is no journal of answers: {error}", hint="Move it away; its answers will be asked for again."
            ) from error
        return connection
