"""Answers of language models and search services by the digest of their request: what was paid for once is kept.

A folder of SQLite files, one per writer: a writer adds to its own and reads all. An answer is on record before anyone
sees it, so a process that is killed loses the requests in flight and no other. Knows keys and JSON values only.
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
_BATCH = 500
"""Keys looked up in one statement."""


class RequestJournal:
    """Recorded answers.

    Args:
        folder: Outlives the run; several runs, configurations and models share it.
        writer: Names the file that this process adds to; no two processes may share one.

    Raises:
        FoundryError: A file of the folder is no such journal.
    """

    def __init__(self, folder: Path, writer: str = "0") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own = self._open(folder / f"answers-{writer}.sqlite")
        others = sorted(path for path in folder.glob("answers-*.sqlite") if path.stem != f"answers-{writer}")
        self._all = [self._own, *map(self._open, others)]

    def __len__(self) -> int:
        return sum(int(one.execute("SELECT COUNT(*) FROM answers").fetchone()[0]) for one in self._all)

    def get(self, keys: Sequence[str], kind: type[T]) -> dict[str, T]:
        """What is on record of `keys`, as `kind`; an answer that is damaged is none, and is asked for again.

        Raises:
            FoundryError: A file is damaged.
        """
        found: dict[str, T] = {}
        damaged = 0
        for start in range(0, len(keys), _BATCH):
            part = list(keys[start : start + _BATCH])
            marks = ",".join("?" * len(part))
            for one in self._all:
                with self._told():
                    rows = one.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", part)  # noqa: S608 - marks only
                    for key, value in rows.fetchall():
                        try:
                            found[key.decode()] = parse_json(value, kind, where=str(self._folder))
                        except StructureError:
                            damaged += 1
        if damaged:
            log.warning("%d answer(s) in %s are damaged and asked for again", damaged, self._folder)
        return found

    def put(self, key: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Record an answer; safe from a kill when the call returns.

        Raises:
            FoundryError: The file is damaged, or the disk is full.
        """
        with self._told():
            self._own.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(value, ensure_ascii=False))
            )

    def close(self) -> None:
        """Close all files."""
        for one in self._all:
            one.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A damaged file is told as such."""
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
            connection.text_factory = bytes  # a flipped bit costs the answer it is in, not the whole file
            # A write-ahead log without a sync at each commit survives the death of the process, if not of the machine.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            raise FoundryError(
                f"{path} is no journal of answers: {error}", hint="Move it away; its answers will be asked for again."
            ) from error
        return connection
