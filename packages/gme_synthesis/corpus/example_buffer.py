"""Examples, rejects and pictures of a run before they are published: in one SQLite file, so that memory stays flat.

Selection needs all examples at once: each example once, fair shares, an order that no shard decides. A database can be
queried for that; a list of ten million examples would not fit into memory. The file is scratch, created anew by each
run. The buffer knows no step.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.images import ImageRecord
from gme_data.items import Item
from gme_data.structured import parse_json
from gme_synthesis.stages import Reject

_CACHE_KIB = 64 * 1024
_TABLES = """
CREATE TABLE rejects (step TEXT, reason TEXT, subject TEXT, text TEXT);
CREATE TABLE examples (source TEXT, task_type TEXT, id TEXT, split TEXT, batch_key TEXT, instruction TEXT,
                       entity_group TEXT, answer TEXT, licence TEXT, query_text TEXT, query_image TEXT,
                       positive_text TEXT, positive_image TEXT, negatives TEXT, draw TEXT, content TEXT UNIQUE);
CREATE TABLE image_groups (image TEXT PRIMARY KEY, entity_group TEXT, several INTEGER) WITHOUT ROWID;
CREATE TABLE pictures (image TEXT PRIMARY KEY, format TEXT, width INTEGER, height INTEGER, source TEXT, licence TEXT,
                       bytes BLOB);
CREATE TABLE pages (passage TEXT PRIMARY KEY, image TEXT) WITHOUT ROWID;
"""
# Batch keys are served in turn, in an order that the seed and the ids alone decide; a cap cuts that order.
_SURPLUS = """
CREATE TEMP TABLE surplus AS SELECT number FROM (
    SELECT number, ROW_NUMBER() OVER (PARTITION BY task_type ORDER BY turn, draw) AS position FROM (
        SELECT rowid AS number, task_type, draw,
               ROW_NUMBER() OVER (PARTITION BY task_type, batch_key ORDER BY draw) AS turn
        FROM examples WHERE source = ?))
WHERE position > ?
"""
_SCALARS = ("source", "task_type", "id", "split", "batch_key", "instruction", "entity_group", "answer", "licence")
_scalars_of = attrgetter(*_SCALARS)
_SIDES = "query_text, query_image, positive_text, positive_image"
_SELECT = f"SELECT {', '.join(_SCALARS)}, {_SIDES}, negatives FROM examples"  # noqa: S608
_SELECT_SURPLUS = f"{_SELECT} WHERE rowid IN (SELECT number FROM surplus)"  # noqa: S608
_COLUMNS = len(_SCALARS) + 7
_INSERT = f"INSERT OR IGNORE INTO examples VALUES ({', '.join('?' * _COLUMNS)})"  # noqa: S608 - placeholders


class ExampleBuffer:
    """See the module's docstring. Close it when done.

    Args:
        path: The file; one that is there is deleted.
        seed: Decides which examples are kept where a source is capped.
    """

    def __init__(self, path: Path, seed: int) -> None:
        path.unlink(missing_ok=True)
        self._seed = seed
        self._file = sqlite3.connect(path, isolation_level=None)
        # The buffer does not outlive the run, so nothing is protected against a kill.
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE_KIB}"):
            self._file.execute(f"PRAGMA {setting}")
        self._file.executescript(_TABLES)
        self._file.execute("BEGIN")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    # Rejects

    def add_rejects(self, rejects: Iterable[Reject]) -> None:
        """Adds what a step refused."""
        rows = ((reject.step, reject.reason, reject.subject, reject.text) for reject in rejects)
        self._file.executemany("INSERT INTO rejects VALUES (?, ?, ?, ?)", rows)

    def rejects(self) -> Iterator[dict[str, str]]:
        """Yields all rejects as rows, sorted by step, reason, subject and text."""
        for row in self._file.execute("SELECT * FROM rejects ORDER BY step, reason, subject, text"):
            yield dict(zip(("step", "reason", "subject", "text"), row, strict=True))

    def count_rejects(self) -> int:
        """Returns the number of rejects."""
        return int(self._file.execute("SELECT COUNT(*) FROM rejects").fetchone()[0])

    def most_common_reasons(self, count: int) -> list[str]:
        """Returns the most common reasons, as ``step: reason``."""
        query = "SELECT step, reason FROM rejects GROUP BY 1, 2 ORDER BY COUNT(*) DESC, 1, 2 LIMIT ?"
        rows = self._file.execute(query, (count,))
        return [f"{step}: {reason}" for step, reason in rows]

    # Examples

    def add(self, example: Example, *, is_accepted: bool) -> str:
        """Adds an example, unless there is one of equal task type, query, positive and negatives.

        Of an example that is not accepted only id and content are remembered: a repeat of it is a repeat.

        Returns:
            Empty, or the id of the earlier example of equal content.
        """
        content = _content_digest(example)
        if is_accepted:
            sides = (example.query.text, example.query.image, example.positive.text, example.positive.image)
            draw = sha256_json([self._seed, "balance", example.id])
            negatives = [(item.text, item.image) for item in example.negatives]
            values = (*_scalars_of(example), *sides, json.dumps(negatives) if negatives else "", draw)
        else:
            empty = [None] * (_COLUMNS - len(_SCALARS) - 1)
            values = (*(example.id if name == "id" else None for name in _SCALARS), *empty)
        # The unique column `content` finds the repeats: of equal examples the first one stays.
        if self._file.execute(_INSERT, (*values, content)).rowcount:
            return ""
        return str(self._file.execute("SELECT id FROM examples WHERE content = ?", (content,)).fetchone()[0])

    def finalize(self) -> None:
        """Deletes the examples that were not accepted and indexes the others. Call it when all examples are added."""
        self._file.execute("DELETE FROM examples WHERE source IS NULL")
        # Built once after all inserts, which is faster than to update it with each of them.
        self._file.execute("CREATE INDEX in_order ON examples (source, task_type, id)")

    def cap(self, caps: Mapping[str, int]) -> Iterator[Example]:
        """Deletes all but ``caps[source]`` examples of each task type of a source; yields those that it deletes.

        The examples of a source are deleted after the last of them was yielded, so the iterator must be exhausted.
        """
        for source, cap in sorted(caps.items()):
            self._file.execute(_SURPLUS, (source, cap))
            yield from map(_example, self._file.execute(_SELECT_SURPLUS))
            self._file.execute("DELETE FROM examples WHERE rowid IN (SELECT number FROM surplus)")
            self._file.execute("DROP TABLE surplus")

    def examples(self, split: str = "", source: str = "", task_type: str = "") -> Iterator[Example]:
        """Yields the examples sorted by source, task type and id; empty arguments select all."""
        filters = {"split": split, "source": source, "task_type": task_type}
        where = " AND ".join(["1", *(f"{name} = :{name}" for name, value in filters.items() if value)])
        query = f"{_SELECT} WHERE {where} ORDER BY source, task_type, id"
        return map(_example, self._file.execute(query, filters))

    def count(self, split: str = "") -> Counter[tuple[str, str]]:
        """Returns the number of examples by source and task type, of one split or of all."""
        rows = self._file.execute(
            "SELECT source, task_type, COUNT(*) FROM examples WHERE split = ? OR ? = '' GROUP BY 1, 2", (split, split)
        )
        return Counter({(source, task_type): count for source, task_type, count in rows})

    def count_splits(self) -> dict[str, int]:
        """Returns the number of examples by split."""
        return dict(self._file.execute("SELECT split, COUNT(*) FROM examples GROUP BY 1 ORDER BY 1"))

    def licences(self) -> list[str]:
        """Returns all licences of the examples, sorted."""
        return [str(name) for (name,) in self._file.execute("SELECT DISTINCT licence FROM examples ORDER BY 1")]

    def used_pictures(self) -> Iterator[str]:
        """Yields the ids of the pictures of all examples, sorted, each once."""
        both = "SELECT query_image AS image FROM examples UNION SELECT positive_image FROM examples"
        rows = self._file.execute(f"SELECT image FROM ({both}) WHERE image IS NOT NULL ORDER BY image")  # noqa: S608
        return (str(id_) for (id_,) in rows)

    # Pictures

    def add_image_group(self, image: str, entity_group: str) -> None:
        """Adds that an image stands for or beside an entity group."""
        self._file.execute(
            "INSERT INTO image_groups VALUES (?, ?, 0) ON CONFLICT (image) "
            "DO UPDATE SET several = 1 WHERE entity_group <> excluded.entity_group",
            (image, entity_group),
        )

    def is_ambiguous(self, image: str) -> bool:
        """Returns whether an image was added with several entity groups."""
        row = self._file.execute("SELECT several FROM image_groups WHERE image = ?", (image,)).fetchone()
        return bool(row and row[0])

    def add_picture(self, metadata: Mapping[str, Any]) -> None:
        """Adds the metadata of a picture; if the picture has some already, these stay."""
        self._file.execute(
            "INSERT OR IGNORE INTO pictures VALUES (:id, :format, :width, :height, :source, :licence, NULL)", metadata
        )

    def add_rendered_page(self, passage: str, page: ImageRecord) -> None:
        """Adds a rendered page of a passage with its bytes."""
        row = (page.id, page.format, page.width, page.height, page.source, page.licence, page.bytes)
        self._file.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self.set_page(passage, page.id)

    def set_page(self, passage: str, image: str) -> None:
        """Sets the image that shows a passage as a page."""
        self._file.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", (passage, image))

    def page_of(self, passage: str) -> str:
        """Returns the image id of the page that shows a passage; empty if there is none."""
        row = self._file.execute("SELECT image FROM pages WHERE passage = ?", (passage,)).fetchone()
        return str(row[0]) if row else ""

    def picture(self, image: str) -> dict[str, Any]:
        """Returns a picture as a row of the image store; its `bytes` are None unless it is a rendered page."""
        names = ("id", "format", "width", "height", "source", "licence", "bytes")
        row = self._file.execute("SELECT * FROM pictures WHERE image = ?", (image,)).fetchone()
        return dict(zip(names, row, strict=True))


def _content_digest(example: Example) -> str:
    items = (example.query, example.positive, *example.negatives)
    return sha256_json([example.task_type, *((item.text, item.image) for item in items)])[:32]


def _example(row: tuple[Any, ...]) -> Example:
    *scalars, query_text, query_image, positive_text, positive_image, packed = row
    negatives = parse_json(packed, list[tuple[str | None, str | None]], where="the example buffer") if packed else []
    return Example(
        **dict(zip(_SCALARS, scalars, strict=True)),
        query=Item(query_text, query_image),
        positive=Item(positive_text, positive_image),
        negatives=tuple(Item(*item) for item in negatives),
    )
