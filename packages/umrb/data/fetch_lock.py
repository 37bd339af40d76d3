"""The lock file of fetched data, ``umrb.lock.json``: of each repository its revision and its files.

It is to fetched data what a manifest is to an output: files that it does not name are refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.manifest import FileEntry, unnamed
from gme_data.structured import read_json

LOCK = "umrb.lock.json"
_MAX_BYTES = 2**30
"""The lock file may be this large, since it names every picture that is a file of its own."""
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class FetchedRepository:
    """A repository as it was fetched: revision, licence and files."""

    revision: str
    licence: str
    files: tuple[FileEntry, ...]


def read_lock(data: Path) -> dict[str, FetchedRepository]:
    """Read the lock file of a folder: repositories by name, {} where nothing was fetched.

    Raises:
        FoundryError: The file is damaged.
    """
    try:
        hint = "Delete it and run `gme umrb fetch` again."
        return read_json(data / LOCK, dict[str, FetchedRepository], max_bytes=_MAX_BYTES, hint=hint)
    except FileNotFoundError:
        return {}


def write_lock(data: Path, repositories: dict[str, FetchedRepository]) -> None:
    """Write the lock file, atomically."""
    raw = {name: asdict(repository) for name, repository in repositories.items()}
    atomic_write(data / LOCK, (json.dumps(raw, indent=1, sort_keys=True) + "\n").encode())


def require_as_fetched(data: Path, repository: str, folder: Path) -> None:
    """Refuse a fetched repository that holds files which did not come with it, since its readers take every file.

    A repository that the lock file does not name was put there by hand, and is read without a check.

    Raises:
        FoundryError: There are such files; the message names them.
    """
    fetched = read_lock(data).get(repository)
    lines = unnamed(folder, {entry.path for entry in fetched.files}) if fetched else []
    if lines:
        raise FoundryError(
            f"{folder} holds what did not come with {repository}: {'; '.join(lines[:_MAX_NAMED])}",
            hint="Move it elsewhere, or delete it.",
        )
