"""The record of what came from the hub: of each repository its revision and its files, in ``umrb.lock.json``.

It is to fetched data what a manifest is to an output: what lies among them and is not named by it is not read.
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
_LARGEST = 2**30
"""Bytes: it names every picture that is a file of its own."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FetchedRepository:
    """What the record says of a repository."""

    revision: str
    licence: str
    files: tuple[FileEntry, ...]


def read_lock(data: Path) -> dict[str, FetchedRepository]:
    """The record of a folder by the names of repositories; {} where nothing was fetched.

    Raises:
        FoundryError: It is damaged.
    """
    try:
        hint = "Delete it and run `gme umrb fetch` again."
        return read_json(data / LOCK, dict[str, FetchedRepository], max_bytes=_LARGEST, hint=hint)
    except FileNotFoundError:
        return {}


def write_lock(data: Path, record: dict[str, FetchedRepository]) -> None:
    """Write the record, whole or not at all."""
    raw = {name: asdict(fetched) for name, fetched in record.items()}
    atomic_write(data / LOCK, (json.dumps(raw, indent=1, sort_keys=True) + "\n").encode())


def require_as_fetched(data: Path, repository: str, folder: Path) -> None:
    """Refuse a fetched repository in which something lies that did not come with it: its readers take every file.

    A repository that is not in the record was put there by hand, and is read as it lies.

    Raises:
        FoundryError: Names what lies there.
    """
    fetched = read_lock(data).get(repository)
    lines = unnamed(folder, {entry.path for entry in fetched.files}) if fetched else []
    if lines:
        raise FoundryError(
            f"{folder} holds what did not come with {repository}: {'; '.join(lines[:_SHOWN])}",
            hint="Move it elsewhere, or delete it.",
        )
