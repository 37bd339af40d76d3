"""URLs of local files, which name exactly that file whatever characters its name has."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname


def sqlite_url(path: Path, driver: str = "sqlite") -> str:
    """Returns SQLAlchemy's address of the sqlite file at `path`.

    SQLAlchemy takes what follows a ``?`` for options and unquotes nothing, so a name with ``?`` (or with ``:memory:``,
    by which others know a database without a file) can only be written in SQLite's own form, which does unquote.

    >>> sqlite_url(Path("/data/runs.db"))
    'sqlite:////data/runs.db'
    >>> sqlite_url(Path("/what?/runs.db"), driver="sqlite+aiosqlite")
    'sqlite+aiosqlite:///file:/what%3F/runs.db?uri=true'
    """
    absolute = str(path.resolve())
    quoted = quote(absolute)
    return f"{driver}:///{absolute}" if quoted == absolute else f"{driver}:///file:{quoted}?uri=true"


def sqlite_path(url: str) -> Path | None:
    """Returns the file that SQLAlchemy's address of a sqlite database names; None for one that lives in memory.

    >>> sqlite_path("sqlite:///file:/what%3F/runs.db?uri=true")
    PosixPath('/what?/runs.db')
    """
    name, _, options = url.partition("://")[2].removeprefix("/").partition("?")
    if "uri=true" in options.split("&") and name.startswith("file:"):
        name = unquote(name.removeprefix("file:"))
    in_memory = not name or name == ":memory:" or "mode=memory" in options.split("&")
    return None if in_memory else Path(name)


def file_url_path(url: str) -> Path:
    """Returns the file that a ``file://`` address names; the inverse of `Path.as_uri`."""
    return Path(url2pathname(urlsplit(url).path))
