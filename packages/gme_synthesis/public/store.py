"""Fetched sets on disk: a folder for each repository, and the lock file that pins revisions and names every file.

``public.lock.json`` is written before the first byte of a file is requested and after each file that arrived, so that a
kill loses one file at most. Knows files; no hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, StringConstraints

from gme_data.digests import sha256_file, sha256_json
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.paths import BelowPath
from gme_data.structured import read_json
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.registry import Role, SetFile

LOCK = "public.lock.json"
URL_PICTURES = "pictures-by-url"
"""Folder of pictures that a set names by URL; the name of each is the sha256 of its URL."""
UNPACKED = "unpacked"
"""Folder of the members of archives that allow no random access."""
UNPACKED_MARK = ".unpacked"
"""File in that folder, written last, with the digest of the archives that were unpacked into it."""
TAR_PART = ".tar.gz"
_MAX_LOCK_BYTES = 2**28
_Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository at the pinned revision.

    Attributes:
        path: Path in the repository.
        bytes: Size that the hub lists.
        stated: sha256 that the hub states; None for files outside of Git LFS, for which it states none.
        fetched: sha256 of the file as it arrived; None before.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    path: BelowPath
    bytes: Annotated[int, Field(ge=0)]
    stated: _Sha256 | None = None
    fetched: _Sha256 | None = None


@dataclass(frozen=True, slots=True)
class PinnedRepository:
    """The lock file's entry of a repository: its commit, and the files that sets need of it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    revision: str
    files: tuple[HubFile, ...]


@dataclass(frozen=True, slots=True)
class SetFiles:
    """The files that a set needs, and what is missing of them.

    Attributes:
        files: Repository and file, in the order of roles and paths.
        roles: Role of each file.
        missing: Why the set can't be read, a line each.
    """

    files: tuple[tuple[str, HubFile], ...]
    roles: tuple[Role, ...]
    missing: tuple[str, ...] = field(default=())

    def paths(self, role: Role, data: Path) -> list[Path]:
        """Returns the paths of the files of a role."""
        return [
            repository_folder(data, repository) / file.path
            for (repository, file), role_of_file in zip(self.files, self.roles, strict=True)
            if role_of_file == role
        ]


@dataclass(frozen=True, slots=True)
class UrlPictures:
    """Which rows' pictures were requested by URL, and how many arrived."""

    rows: int
    seed: int
    pictures: int
    failed: dict[str, int]
    digest: str


def repository_folder(data: Path, repository: str) -> Path:
    """Returns the folder of a repository's files."""
    return data / repository.replace("/", "--")


def read_lock(data: Path) -> dict[str, PinnedRepository]:
    """Reads the lock file; returns its entries by repository, {} where nothing was fetched.

    Raises:
        FoundryError: The file is damaged.
    """
    try:
        hint = "Bring it back from version control, or delete it and run `gme data fetch` again."
        return read_json(data / LOCK, dict[str, PinnedRepository], max_bytes=_MAX_LOCK_BYTES, hint=hint)
    except FileNotFoundError:
        return {}


def write_lock(data: Path, lock: Mapping[str, PinnedRepository]) -> None:
    """Writes the lock file atomically."""
    data.mkdir(parents=True, exist_ok=True)
    raw = {name: asdict(pinned) for name, pinned in sorted(lock.items())}
    atomic_write(data / LOCK, (json.dumps(raw, indent=1) + "\n").encode())


def url_pictures_path(data: Path, repository: str) -> Path:
    """Returns the file that records which pictures were fetched."""
    return repository_folder(data, repository) / f"{URL_PICTURES}.json"


def read_url_pictures(data: Path, repository: str) -> UrlPictures | None:
    """Reads which pictures were fetched; None if no fetch was completed."""
    try:
        return read_json(url_pictures_path(data, repository), UrlPictures, hint="Run `gme data fetch` again.")
    except FileNotFoundError:
        return None


def matches(file: SetFile, path: str) -> bool:
    """Says whether a path matches a file, or pattern, of the registry."""
    return re.fullmatch(re.escape(file.path).replace(r"\*", "[^/]*"), path) is not None


def select_files(choice: SetChoice, file: SetFile, listing: Iterable[HubFile]) -> list[HubFile]:
    """Returns the files of a listing that match an entry of the registry; of rows at most `choice.files`."""
    # Sorted, so that "the first three files" are the same ones in every run and on every hub.
    selected = sorted((entry for entry in listing if matches(file, entry.path)), key=lambda entry: entry.path)
    return selected[: choice.files] if file.role == "rows" else selected


def files_of(choice: SetChoice, data: Path) -> SetFiles:
    """Returns the files of a set by the lock file, and what of them is missing or has another size."""
    lock = read_lock(data)
    files: list[tuple[str, HubFile]] = []
    roles: list[Role] = []
    missing: list[str] = []
    for file in choice.upstream.files:
        repository = file.repository or choice.upstream.repository
        pinned = lock.get(repository)
        selected = select_files(choice, file, pinned.files) if pinned else []
        if not selected:
            missing.append(f"{repository}/{file.path} was never fetched")
        missing += [problem for entry in selected if (problem := _problem(repository_folder(data, repository), entry))]
        files += [(repository, entry) for entry in selected]
        roles += [file.role] * len(selected)
    return SetFiles(tuple(files), tuple(roles), tuple(missing))


def archives_of(selected: SetFiles, data: Path) -> list[Path]:
    """Returns the archives of pictures that must be unpacked before they can be read."""
    return [path for path in selected.paths("pictures", data) if TAR_PART in path.name]


def is_unpacked(choice: SetChoice, selected: SetFiles, data: Path) -> bool:
    """Says whether the archives of a set, in their present state, were unpacked completely."""
    # The mark holds the digest of the archives, so that pictures of archives that were fetched anew count as stale.
    mark = repository_folder(data, choice.upstream.repository) / UNPACKED / UNPACKED_MARK
    return mark.is_file() and mark.read_text(encoding="ascii") == archives_digest(selected)


def archives_digest(selected: SetFiles) -> str:
    """Returns a digest of the archives of a set by their contents."""
    return sha256_json([entry.fetched for _, entry in selected.files if TAR_PART in entry.path])


def missing_parts(choice: SetChoice, data: Path, seed: int) -> tuple[str, ...]:
    """Returns why a set can't be read, a line each: missing files, archives not unpacked, pictures not fetched."""
    selected = files_of(choice, data)
    missing = selected.missing
    if not missing and archives_of(selected, data) and not is_unpacked(choice, selected, data):
        return (f"the pictures of {choice.upstream.repository} were not unpacked to their end",)
    if choice.upstream.layout != "urls":
        return missing
    # Another seed samples other rows, whose pictures are other URLs.
    fetched = read_url_pictures(data, choice.upstream.repository)
    if fetched is not None and (fetched.rows, fetched.seed) == (choice.rows, seed):
        return missing
    return (*missing, f"the pictures of {choice.rows:,} rows drawn by seed {seed} were never fetched")


def files_identity(choice: SetChoice, data: Path, seed: int) -> list[str]:
    """Returns path and sha256 of every file of a set; nothing for a set that is not fetched completely."""
    if missing_parts(choice, data, seed):
        return []
    files = [f"{repository}/{file.path} {file.fetched}" for repository, file in files_of(choice, data).files]
    pictures = read_url_pictures(data, choice.upstream.repository)
    return files + ([pictures.digest] if pictures and choice.upstream.layout == "urls" else [])


def require_fetched(choices: Sequence[SetChoice], data: Path, seed: int) -> None:
    """Refuses sets that are not fetched completely.

    Raises:
        FoundryError: Names the sets, the first missing part of each, and the command that fetches them.
    """
    missing = {choice.name: reasons for choice in choices if (reasons := missing_parts(choice, data, seed))}
    if missing:
        listing = "; ".join(f"{name}: {reasons[0]}" for name, reasons in missing.items())
        raise FoundryError(
            f"{len(missing)} of {len(choices)} public sets are not fetched: {listing}.",
            hint=f"`gme data fetch {' '.join(missing)} --config FILE` brings them; `gme data plan` tells sizes.",
        )


def changed_files(choice: SetChoice, data: Path) -> list[str]:
    """Returns what differs from the files as they arrived, a line each. It hashes all of them, which takes its time."""
    selected = files_of(choice, data)
    if selected.missing:
        return list(selected.missing)
    paths = ((repository_folder(data, repository) / file.path, file) for repository, file in selected.files)
    return [f"{path} has changed since it was fetched" for path, file in paths if sha256_file(path) != file.fetched]


def _problem(folder: Path, file: HubFile) -> str:
    # Sizes alone, since this runs at every start and sets may have terabytes; `gme data verify` compares digests.
    path = folder / file.path
    if file.fetched is None or not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    return "" if size == file.bytes else f"{path} has {size:,} bytes, {file.bytes:,} were fetched"
