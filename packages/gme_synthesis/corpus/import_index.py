"""Ids, names of pictures and rejects that an import has seen while rows stream by: in SQLite, not in memory.

The index is scratch of one import, created anew by each. It knows names and reasons, and reads no file of the user.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gme_data.errors import did_you_mean
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.store import Caption
from gme_synthesis.stages import Reject
from gme_synthesis.steps.cleaning import plain_label

_CACHE_KIB = 64 * 1024
_MAX_SUGGESTIONS = 20
"""So many names without a picture get a suggestion; comparing with all names is slow."""
_MAX_COMPARED_NAMES = 10_000
"""A suggestion compares with at most so many names."""
_TABLES = """
CREATE TABLE rejects (step TEXT, reason TEXT, subject TEXT, text TEXT);
CREATE TABLE ids (id TEXT PRIMARY KEY, location TEXT) WITHOUT ROWID;
CREATE TABLE pictures (name TEXT PRIMARY KEY, key TEXT, base TEXT, stem TEXT, image TEXT, caption TEXT, licence TEXT);
CREATE INDEX by_key ON pictures (key);
CREATE INDEX by_base ON pictures (base);
CREATE INDEX by_stem ON pictures (stem);
CREATE TABLE groups (caption TEXT PRIMARY KEY, entity_group TEXT) WITHOUT ROWID;
CREATE TABLE beside (image TEXT PRIMARY KEY, title TEXT, entity_group TEXT) WITHOUT ROWID;
CREATE TABLE pages (image TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE captions (image TEXT PRIMARY KEY, caption TEXT, entity_group TEXT, licence TEXT) WITHOUT ROWID;
"""


class ReasonCount(NamedTuple):
    """Number of rows or pictures that were refused for a reason, and the first of them, with file and row."""

    reason: str
    rows: int
    first: str


@dataclass(frozen=True, slots=True)
class PictureMatch:
    """The result of looking up a picture by a name.

    Attributes:
        image: Image id; empty if no picture has the name, or more than one.
        problem: Why there is no image, for counting; empty if there is one, or if none was required.
        detail: The problem in words.
    """

    image: str
    problem: str = ""
    detail: str = ""


_NO_PICTURE = PictureMatch("")


class ImportIndex:
    """See the module's docstring. Close it when done.

    Args:
        path: The file; one that is there is deleted.
        pictures: The folder of pictures; rows may name a picture with or without the folder before it.

    Attributes:
        passages: Number of passages that were added.
        titled: How many of them have a title.
        pictured: How many of them have a picture beside them.
    """

    def __init__(self, path: Path, pictures: Path | None) -> None:
        path.unlink(missing_ok=True)
        self._file = sqlite3.connect(path, isolation_level=None)
        # The index does not outlive the import, so nothing is protected against a kill.
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE_KIB}"):
            self._file.execute(f"PRAGMA {setting}")
        self._file.executescript(_TABLES)
        self._file.execute("BEGIN")
        self._prefixes = _prefixes(pictures) if pictures else ()
        self._has_pictures = False
        self.passages = self.titled = self.pictured = 0

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    # Rejects

    def reject(self, reason: str, subject: str, location: str, detail: str) -> None:
        """Adds a row or picture that was refused.

        Args:
            reason: A word or two with dashes, for counting.
            subject: Id of the row, or its location where it has none.
            location: File and row.
            detail: What was expected, or the beginning of the content.
        """
        row = ("import", reason, subject, f"{location}: {detail[:400]}")
        self._file.execute("INSERT INTO rejects VALUES (?, ?, ?, ?)", row)

    def rejects(self) -> Iterator[Reject]:
        """Yields all rejects, sorted by reason, subject and text."""
        rows = self._file.execute("SELECT * FROM rejects ORDER BY step, reason, subject, text")
        return (Reject(*row) for row in rows)

    def reasons(self) -> list[ReasonCount]:
        """Returns the counts by reason, the most frequent first, with the first reject of each in the files' order."""
        # Rejects are added in the order of the files, so the smallest row id is the first one.
        counted = "SELECT reason, COUNT(*) AS many, MIN(rowid) AS first FROM rejects GROUP BY reason"
        rows = self._file.execute(
            f"SELECT c.reason, many, text FROM ({counted}) c JOIN rejects r ON r.rowid = first "  # noqa: S608 - constant
            "ORDER BY many DESC, c.reason"
        )
        return [ReasonCount(*row) for row in rows]

    # Passages

    def add_ids(self, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Adds the ids of some rows.

        Args:
            rows: Id and location of each row.

        Returns:
            Empty if all ids are new; else, by location, where the row's id stands already, or an empty text.
        """
        # One statement for all rows; single ids are looked up only if one of them is a repeat.
        added = self._file.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", rows).rowcount
        if added == len(rows):
            return {}
        query = "SELECT location FROM ids WHERE id = ?"
        earlier = [str(self._file.execute(query, (id_,)).fetchone()[0]) for id_, _ in rows]
        return {
            location: first if first != location else "" for (_, location), first in zip(rows, earlier, strict=True)
        }

    def add_passage(self, passage: Candidate) -> Candidate:
        """Adds what captions need of a passage, and returns the passage."""
        self.passages += 1
        self.titled += bool(passage.title)
        self.pictured += bool(passage.picture)
        if self._has_pictures:
            if passage.page:
                self._file.execute("INSERT OR IGNORE INTO pages VALUES (?)", (passage.page,))
            if passage.picture and passage.title:
                row = (passage.picture, passage.title, passage.entity_group)
                self._file.execute("INSERT OR IGNORE INTO beside VALUES (?, ?, ?)", row)
            names = [(passage.entity_group, name.casefold()) for name in passage.names]
            self._file.executemany(
                "UPDATE groups SET entity_group = ? WHERE caption = ? AND entity_group IS NULL", names
            )
        return passage

    # Pictures

    def add_picture(self, name: str, image: str, caption: str, licence: str) -> bool:
        """Adds a picture under its name; returns False if another picture has that name."""
        key = _key(name)
        row = (name, key, PurePosixPath(key).name, _stem(name), image, caption, licence)
        if not self._file.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
            same = self._file.execute("SELECT 1 FROM pictures WHERE name = ? AND image = ?", (name, image)).fetchone()
            return same is not None
        self._has_pictures = True
        caption = caption or words_of(name)
        self._file.execute("INSERT OR IGNORE INTO groups VALUES (?, NULL)", (caption.casefold(),))
        return True

    def count_pictures(self) -> int:
        """Returns the number of different pictures."""
        return int(self._file.execute("SELECT COUNT(DISTINCT image) FROM pictures").fetchone()[0])

    def match_name(self, name: str) -> PictureMatch:
        """Looks up the picture that a row calls `name`.

        Spaces around it, ``./``, backslashes, upper and lower case, the form of Unicode, and the picture folder's own
        name or path before it make no difference, as long as only one picture matches.
        """
        # The exact name first: a file system may hold two names that differ in case only.
        exact = self._file.execute("SELECT image FROM pictures WHERE name = ?", (name,)).fetchone()
        if exact:
            return PictureMatch(str(exact[0]))
        key = _key(name)
        keys = [key, *(key.removeprefix(prefix) for prefix in self._prefixes if key.startswith(prefix))]
        for candidate in keys:
            match = self._only_match("key", candidate)
            if match:
                return match
        if not PurePosixPath(key).suffix and (match := self._only_match("stem", _stem(name))):
            return match
        return PictureMatch("", "not-found", f"{name!r}.{self._suggestion(name)}")

    def match_stem(self, id_: str) -> PictureMatch:
        """Looks up the picture whose file has the id of a passage as its name; no such picture is no problem."""
        if not self._has_pictures:
            return _NO_PICTURE
        return self._only_match("stem", unicodedata.normalize("NFC", id_)) or _NO_PICTURE

    def _only_match(self, column: str, value: str) -> PictureMatch | None:
        """Returns the picture with this value, or the problem that several have it; None if none has."""
        rows = self._file.execute(
            f"SELECT image, MIN(name) FROM pictures WHERE {column} = ? GROUP BY image ORDER BY 2 LIMIT 3",  # noqa: S608
            (value,),
        ).fetchall()
        if len(rows) > 1:
            return PictureMatch("", "ambiguous", f"{value!r} is {' and '.join(name for _, name in rows)}")
        return PictureMatch(str(rows[0][0])) if rows else None

    def _suggestion(self, name: str) -> str:
        """Returns "Did you mean ...?" for a name without a picture; empty if none is near, or too many were missing."""
        same_base = "SELECT name FROM pictures WHERE base = ? ORDER BY name LIMIT 1"
        elsewhere = self._file.execute(same_base, (PurePosixPath(_key(name)).name,)).fetchone()
        if elsewhere:
            return f" Did you mean {elsewhere[0]!r}?"
        missing = "SELECT COUNT(*) FROM (SELECT 1 FROM rejects WHERE reason LIKE '%-not-found' LIMIT ?)"
        if self._file.execute(missing, (_MAX_SUGGESTIONS,)).fetchone()[0] >= _MAX_SUGGESTIONS:
            return ""
        names = self._file.execute("SELECT name FROM pictures ORDER BY name LIMIT ?", (_MAX_COMPARED_NAMES,))
        return did_you_mean(name, [str(row[0]) for row in names])

    # Captions

    def captions(self) -> Iterator[Caption]:
        """Yields the captions of all pictures that are no pages, by image id.

        A caption is the picture's own, else the title of the passage beside it, else the words of its name.
        """
        pictures = self._file.execute(
            "SELECT name, image, p.caption, licence, title, b.entity_group FROM pictures p LEFT JOIN beside b "
            "USING (image) WHERE image NOT IN (SELECT image FROM pages) ORDER BY name"
        )
        for name, image, own_caption, licence, title, group in pictures:
            if caption := own_caption or title or words_of(name):
                # Of a picture that is stored under several names, the first one with a caption counts.
                row = (image, caption, group or self._group_of(caption), licence)
                self._file.execute("INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?)", row)
        return (Caption(*row) for row in self._file.execute("SELECT * FROM captions ORDER BY image"))

    def _group_of(self, caption: str) -> str:
        """Returns the group of the first passage that has the caption among its names; else the caption itself."""
        query = "SELECT entity_group FROM groups WHERE caption = ?"
        row = self._file.execute(query, (caption.casefold(),)).fetchone()
        return str(row[0]) if row and row[0] else caption.casefold()


def words_of(name: str) -> str:
    """Returns the words of a file's name: ``red_panda-02.jpg`` -> ``red panda``."""
    return plain_label(re.sub(r"[\W_]+\d*$", "", " ".join(re.split(r"[_\-\s]+", PurePosixPath(name).stem))))


def _key(name: str) -> str:
    """Returns a name without the differences between how people write it and how a file system shows it."""
    path = unicodedata.normalize("NFC", name).strip().replace("\\", "/")
    return str(PurePosixPath(path)).casefold()


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(name).stem)


def _prefixes(pictures: Path) -> tuple[str, ...]:
    """Returns what people write before a picture's name: the folder's name, and its path as given and from the root."""
    written = dict.fromkeys(_key(str(path)) for path in (Path(pictures.resolve().name), pictures, pictures.resolve()))
    return tuple(f"{path}/" for path in written if path != ".")
