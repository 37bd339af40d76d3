"""Examples, rejects and pictures of a run on their way to the output: in one SQLite file, so that memory stays flat.

Selection needs everything at once: each example once, fair shares, an order that no shard decides. A file can be asked
for that; a list of ten million examples could not. It is scratch, made anew by each run. Knows no step.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.images import ImageRecord
from gme_data.items import Item
from gme_data.structured import parse_json
from gme_synthesis.records import Reject

_CACHE_KIB = 64 * 1024
_TABLES = """
CREATE TABLE rejects (step TEXT, reason TEXT, subject TEXT, text TEXT);
CREATE TABLE examples (source TEXT, task_type TEXT, id TEXT, split TEXT, batch_key TEXT, instruction TEXT,
                       entity_group TEXT, answer TEXT, licence TEXT, asked_text TEXT, asked TEXT, shown_text TEXT,
                       shown TEXT, negatives TEXT, draw TEXT, content TEXT UNIQUE);
CREATE TABLE sights (image TEXT PRIMARY KEY, entity_group TEXT, several INTEGER) WITHOUT ROWID;
CREATE TABLE pictures (image TEXT PRIMARY KEY, format TEXT, width INTEGER, height INTEGER, source TEXT, licence TEXT,
                       bytes BLOB);
CREATE TABLE pages (passage TEXT PRIMARY KEY, image TEXT) WITHOUT ROWID;
"""
# Batch keys are served in turn, in an order that the seed and the ids alone decide; a cap cuts that order.
_SURPLUS = """
CREATE TEMP TABLE surplus AS SELECT number FROM (
    SELECT number, ROW_NUMBER() OVER (PARTITION BY task_type ORDER BY turn, draw) AS place FROM (
        SELECT rowid AS number, task_type, draw,
               ROW_NUMBER() OVER (PARTITION BY task_type, batch_key ORDER BY draw) AS turn
        FROM examples WHERE source = ?))
WHERE place > ?
"""
_PLAIN = ("source", "task_type", "id", "split", "batch_key", "instruction", "entity_group", "answer", "licence")
_plain_of = attrgetter(*_PLAIN)
_SELECT = f"SELECT {', '.join(_PLAIN)}, asked_text, asked, shown_text, shown, negatives FROM examples"  # noqa: S608
_SELECT_SURPLUS = f"{_SELECT} WHERE rowid IN (SELECT number FROM surplus)"  # noqa: S608


_COLUMNS = len(_PLAIN) + 7
_INSERT = f"INSERT OR IGNORE INTO examples VALUES ({', '.join('?' * _COLUMNS)})"  # noqa: S608 - marks


class Spool:
    """See the module's docstring. Close it when done.

    Args:
        path: The file; what is there is lost.
        seed: Decides which examples stay where a source is capped.
    """

    def __init__(self, path: Path, seed: int) -> None:
        path.unlink(missing_ok=True)
        self._seed = seed
        self._file = sqlite3.connect(path, isolation_level=None)
        # Nothing here outlives the run, so nothing is kept safe from a kill.
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE_KIB}"):
            self._file.execute(f"PRAGMA {setting}")
        self._file.executescript(_TABLES)
        self._file.execute("BEGIN")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # Rejects

    def reject(self, rejects: Iterable[Reject]) -> None:
        """Keep what a step refused."""
        rows = ((one.step, one.reason, one.subject, one.text) for one in rejects)
        self._file.executemany("INSERT INTO rejects VALUES (?, ?, ?, ?)", rows)

    def rejects(self) -> Iterator[dict[str, str]]:
        """All rejects, sorted by step, reason, subject and text."""
        for row in self._file.execute("SELECT * FROM rejects ORDER BY step, reason, subject, text"):
            yield dict(zip(("step", "reason", "subject", "text"), row, strict=True))

    def count_rejects(self) -> int:
        """How many there are."""
        return int(self._file.execute("SELECT COUNT(*) FROM rejects").fetchone()[0])

    def commonest(self, count: int) -> list[str]:
        """The commonest reasons, as ``step: reason``."""
        most = "SELECT step, reason FROM rejects GROUP BY 1, 2 ORDER BY COUNT(*) DESC, 1, 2 LIMIT ?"
        rows = self._file.execute(most, (count,))
        return [f"{step}: {reason}" for step, reason in rows]

    # Examples

    def add(self, example: Example, *, kept: bool) -> str:
        """Take an example, or give the id of an earlier one of equal task type, query, positive and negatives.

        What is not kept is remembered: its repeats are repeats.
        """
        content = _content(example)
        sides = (example.query.text, example.query.image, example.positive.text, example.positive.image)
        draw = sha256_json([self._seed, "balance", example.id])
        values = (*_plain_of(example), *sides, _pack(example.negatives), draw) if kept else _forgotten(example)
        if self._file.execute(_INSERT, (*values, content)).rowcount:
            return ""
        return str(self._file.execute("SELECT id FROM examples WHERE content = ?", (content,)).fetchone()[0])

    def settle(self) -> None:
        """All examples are there: forget those that are not kept, make the others quick to read in order."""
        self._file.execute("DELETE FROM examples WHERE source IS NULL")
        self._file.execute("CREATE INDEX in_order ON examples (source, task_type, id)")

    def cap(self, caps: Mapping[str, int]) -> Iterator[Example]:
        """Leave at most ``caps[source]`` examples of each task type of a source; gives those that go."""
        for source, most in sorted(caps.items()):
            self._file.execute(_SURPLUS, (source, most))
            gone = self._file.execute(_SELECT_SURPLUS)
            yield from map(_example, gone)
            self._file.execute("DELETE FROM examples WHERE rowid IN (SELECT number FROM surplus)")
            self._file.execute("DROP TABLE surplus")

    def examples(self, split: str = "", source: str = "", task_type: str = "") -> Iterator[Example]:
        """Examples sorted by source, task type and id; those of a split, source or task type where given."""
        given = {"split": split, "source": source, "task_type": task_type}
        where = " AND ".join(["1", *(f"{name} = :{name}" for name, value in given.items() if value)])
        asked = f"{_SELECT} WHERE {where} ORDER BY source, task_type, id"
        return map(_example, self._file.execute(asked, given))

    def count(self, split: str = "") -> Counter[tuple[str, str]]:
        """How many there are of each source and task type."""
        rows = self._file.execute(
            "SELECT source, task_type, COUNT(*) FROM examples WHERE split = ? OR ? = '' GROUP BY 1, 2", (split, split)
        )
        return Counter({(source, task_type): count for source, task_type, count in rows})

    def splits(self) -> dict[str, int]:
        """How many there are of each split."""
        return dict(self._file.execute("SELECT split, COUNT(*) FROM examples GROUP BY 1 ORDER BY 1"))

    def licences(self) -> list[str]:
        """All licences of the examples."""
        return [str(name) for (name,) in self._file.execute("SELECT DISTINCT licence FROM examples ORDER BY 1")]

    def used_pictures(self) -> Iterator[str]:
        """Ids of the pictures of all examples, sorted, each once."""
        both = "SELECT asked AS image FROM examples UNION SELECT shown FROM examples"
        rows = self._file.execute(f"SELECT image FROM ({both}) WHERE image IS NOT NULL ORDER BY image")  # noqa: S608
        return (str(id_) for (id_,) in rows)

    # Pictures

    def sees(self, image: str, entity_group: str) -> None:
        """Note that a picture stands for or beside an entity group."""
        self._file.execute(
            "INSERT INTO sights VALUES (?, ?, 0) ON CONFLICT (image) "
            "DO UPDATE SET several = 1 WHERE entity_group <> excluded.entity_group",
            (image, entity_group),
        )

    def is_ambiguous(self, image: str) -> bool:
        """Whether it was seen with several entity groups."""
        found = self._file.execute("SELECT several FROM sights WHERE image = ?", (image,)).fetchone()
        return bool(found and found[0])

    def know(self, facts: Mapping[str, Any]) -> None:
        """Note what is known of a picture; the first word on it counts."""
        self._file.execute(
            "INSERT OR IGNORE INTO pictures VALUES (:id, :format, :width, :height, :source, :licence, NULL)", facts
        )

    def keep_page(self, passage: str, page: ImageRecord) -> None:
        """Keep a rendered page with its bytes."""
        facts = (page.id, page.format, page.width, page.height, page.source, page.licence, page.bytes)
        self._file.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", facts)
        self.note_page(passage, page.id)

    def note_page(self, passage: str, image: str) -> None:
        """Note which picture shows a passage as a page."""
        self._file.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", (passage, image))

    def page_of(self, passage: str) -> str:
        """Image id of the page that shows a passage; empty if there is none."""
        found = self._file.execute("SELECT image FROM pages WHERE passage = ?", (passage,)).fetchone()
        return str(found[0]) if found else ""

    def picture(self, image: str) -> dict[str, Any]:
        """What is known of a picture, as a row of the store; `bytes` is None where a store has them."""
        names = ("id", "format", "width", "height", "source", "licence", "bytes")
        found = self._file.execute("SELECT * FROM pictures WHERE image = ?", (image,)).fetchone()
        return dict(zip(names, found, strict=True))


def _content(example: Example) -> str:
    items = (example.query, example.positive, *example.negatives)
    return sha256_json([example.task_type, *((item.text, item.image) for item in items)])[:32]


def _forgotten(example: Example) -> tuple[str | None, ...]:
    return tuple(example.id if name == "id" else None for name in (*_PLAIN, *[""] * (_COLUMNS - len(_PLAIN) - 1)))


def _pack(items: Sequence[Item]) -> str:
    return json.dumps([(item.text, item.image) for item in items]) if items else ""


def _unpack(packed: str) -> tuple[Item, ...]:
    items = parse_json(packed, list[tuple[str | None, str | None]], where="the spool") if packed else []
    return tuple(Item(*item) for item in items)


def _example(row: tuple[Any, ...]) -> Example:
    *plain, asked_text, asked, shown_text, shown, negatives = row
    return Example(
        **dict(zip(_PLAIN, plain, strict=True)),
        query=Item(asked_text, asked),
        positive=Item(shown_text, shown),
        negatives=_unpack(negatives),
    )
