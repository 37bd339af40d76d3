"""What an import has to remember while rows stream by: ids, names of pictures, rejects. In SQLite, not in memory.

Scratch of one import, made anew by each. Knows names and reasons; reads no file of a user's.
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
from gme_synthesis.records import Reject

_CACHE_KIB = 64 * 1024
_SUGGESTIONS = 20
"""Pictures that were not found get a suggestion up to here; comparing with all names takes its time."""
_NAMES_COMPARED = 10_000
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
    """How often something was refused for a reason, and the first of them, with file and row."""

    reason: str
    rows: int
    first: str


@dataclass(frozen=True, slots=True)
class PictureMatch:
    """The picture that a name leads to.

    Attributes:
        image: Image id; empty if there is no picture, or more than one.
        problem: Why there is none; empty if there is one.
    """

    image: str
    problem: str = ""
    detail: str = ""


_NO_PICTURE = PictureMatch("")


class ImportIndex:
    """See the module's docstring. Close it when done.

    Args:
        path: The file; what is there is lost.
        pictures: The folder of pictures, whose own name people write before the names in it.
    """

    def __init__(self, path: Path, pictures: Path | None) -> None:
        path.unlink(missing_ok=True)
        self._file = sqlite3.connect(path, isolation_level=None)
        # Nothing here outlives the import, so nothing is kept safe from a kill.
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE_KIB}"):
            self._file.execute(f"PRAGMA {setting}")
        self._file.executescript(_TABLES)
        self._file.execute("BEGIN")
        self._prefixes = _prefixes(pictures) if pictures else ()
        self._has_pictures = False
        self.passages = self.titled = self.pictured = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # Rejects

    def reject(self, reason: str, subject: str, location: str, detail: str) -> None:
        """Note what was refused.

        Args:
            reason: For counting.
            subject: Id of the row, or its location where it has none.
            location: File and row.
            detail: What was expected, or the beginning of what is there.
        """
        row = ("import", reason, subject, f"{location}: {detail[:400]}")
        self._file.execute("INSERT INTO rejects VALUES (?, ?, ?, ?)", row)

    def rejects(self) -> Iterator[Reject]:
        """All of them, sorted by reason, subject and text."""
        rows = self._file.execute("SELECT * FROM rejects ORDER BY step, reason, subject, text")
        return (Reject(*row) for row in rows)

    def reasons(self) -> list[ReasonCount]:
        """Rejects by reason, the commonest first, with the first of each in the order of the files."""
        counted = "SELECT reason, COUNT(*) AS many, MIN(rowid) AS first FROM rejects GROUP BY reason"
        rows = self._file.execute(
            f"SELECT c.reason, many, text FROM ({counted}) c JOIN rejects r ON r.rowid = first "  # noqa: S608 - constant
            "ORDER BY many DESC, c.reason"
        )
        return [ReasonCount(*row) for row in rows]

    # Passages

    def add_ids(self, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Note the ids of some rows, each with its location.

        Returns:
            Empty if all are new; else, by location, where the row's id stood before, or an empty text.
        """
        added = self._file.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", rows).rowcount
        if added == len(rows):
            return {}
        known = "SELECT location FROM ids WHERE id = ?"
        first = [str(self._file.execute(known, (id_,)).fetchone()[0]) for id_, _ in rows]
        return {row: before if before != row else "" for (_, row), before in zip(rows, first, strict=True)}

    def add_passage(self, passage: Candidate) -> Candidate:
        """Note what captions need to know of a passage, and give it back."""
        self.passages += 1
        self.titled += bool(passage.title)
        self.pictured += bool(passage.picture)
        if self._has_pictures:
            if passage.page:
                self._file.execute("INSERT OR IGNORE INTO pages VALUES (?)", (passage.page,))
            if passage.picture and passage.title:
                row = (passage.picture, passage.title, passage.entity_group)
                self._file.execute("INSERT OR IGNORE INTO beside VALUES (?, ?, ?)", row)
            about = [(passage.entity_group, name.casefold()) for name in passage.names]
            self._file.executemany(
                "UPDATE groups SET entity_group = ? WHERE caption = ? AND entity_group IS NULL", about
            )
        return passage

    # Pictures

    def add_picture(self, name: str, image: str, caption: str, licence: str) -> bool:
        """Note a picture under its name; False if another picture has that name."""
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
        """Number of different pictures."""
        return int(self._file.execute("SELECT COUNT(DISTINCT image) FROM pictures").fetchone()[0])

    def match_name(self, name: str) -> PictureMatch:
        """The picture that a row calls `name`.

        Spaces around it, ``./``, backslashes, upper and lower case, the form of Unicode, and the picture folder's own
        name or path before it make no difference, as long as only one picture is meant.
        """
        exact = self._file.execute("SELECT image FROM pictures WHERE name = ?", (name,)).fetchone()
        if exact:
            return PictureMatch(str(exact[0]))
        key = _key(name)
        keys = [key, *(key.removeprefix(prefix) for prefix in self._prefixes if key.startswith(prefix))]
        for tried in keys:
            match = self._only("key", tried)
            if match:
                return match
        if not PurePosixPath(key).suffix and (match := self._only("stem", _stem(name))):
            return match
        return PictureMatch("", "not-found", f"{name!r}.{self._suggestion(name)}")

    def match_stem(self, id_: str) -> PictureMatch:
        """The picture that is called as a passage's id; no picture and no problem if none is."""
        if not self._has_pictures:
            return _NO_PICTURE
        return self._only("stem", unicodedata.normalize("NFC", id_)) or _NO_PICTURE

    def _only(self, column: str, value: str) -> PictureMatch | None:
        rows = self._file.execute(
            f"SELECT image, MIN(name) FROM pictures WHERE {column} = ? GROUP BY image ORDER BY 2 LIMIT 3",  # noqa: S608
            (value,),
        ).fetchall()
        if len(rows) > 1:
            return PictureMatch("", "ambiguous", f"{value!r} is {' and '.join(name for _, name in rows)}")
        return PictureMatch(str(rows[0][0])) if rows else None

    def _suggestion(self, name: str) -> str:
        same = "SELECT name FROM pictures WHERE base = ? ORDER BY name LIMIT 1"
        elsewhere = self._file.execute(same, (PurePosixPath(_key(name)).name,)).fetchone()
        if elsewhere:
            return f" Did you mean {elsewhere[0]!r}?"
        missing = "SELECT COUNT(*) FROM (SELECT 1 FROM rejects WHERE reason LIKE '%-not-found' LIMIT ?)"
        if self._file.execute(missing, (_SUGGESTIONS,)).fetchone()[0] >= _SUGGESTIONS:
            return ""
        names = self._file.execute("SELECT name FROM pictures ORDER BY name LIMIT ?", (_NAMES_COMPARED,))
        return did_you_mean(name, [str(row[0]) for row in names])

    # Captions

    def captions(self) -> Iterator[Caption]:
        """Of each picture that is no page: its own, the title beside it, or the words of its name; by image id."""
        shown = self._file.execute(
            "SELECT name, image, p.caption, licence, title, b.entity_group FROM pictures p LEFT JOIN beside b "
            "USING (image) WHERE image NOT IN (SELECT image FROM pages) ORDER BY name"
        )
        for name, image, own, licence, title, group in shown:
            if caption := own or title or words_of(name):
                row = (image, caption, group or self._group_of(caption), licence)
                self._file.execute("INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?)", row)
        return (Caption(*row) for row in self._file.execute("SELECT * FROM captions ORDER BY image"))

    def _group_of(self, caption: str) -> str:
        """Entity group of the first passage that has the caption among its names; the caption itself if none has."""
        known = "SELECT entity_group FROM groups WHERE caption = ?"
        row = self._file.execute(known, (caption.casefold(),)).fetchone()
        return str(row[0]) if row and row[0] else caption.casefold()


def words_of(name: str) -> str:
    """``red_panda-02.jpg`` -> ``red panda``."""
    return re.sub(r"[\W_]+\d*$", "", " ".join(re.split(r"[_\-\s]+", PurePosixPath(name).stem)))


def _key(name: str) -> str:
    """A name without what differs between how people write a file's name and how a file system shows it."""
    path = unicodedata.normalize("NFC", name).strip().replace("\\", "/")
    return str(PurePosixPath(path)).casefold()


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(name).stem)


def _prefixes(pictures: Path) -> tuple[str, ...]:
    """What people write before a picture's name: the folder's name, and its path as given and from the root."""
    written = dict.fromkeys(_key(str(path)) for path in (Path(pictures.resolve().name), pictures, pictures.resolve()))
    return tuple(f"{path}/" for path in written if path != ".")
