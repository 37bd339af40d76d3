"""Fetched sets on disk: a folder for each repository, and the lock file that pins revisions and names every file.

``public.lock.json`` is written before the first byte of a file is asked for and after each file that came, so that a
kill loses one file at most. Knows files; no hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
"""Folder of pictures that a set names by their address, each called by the sha256 of it."""
UNPACKED = "unpacked"
"""Folder beside the archives of a repository that can only be read from end to end."""
UNPACKED_MARK = ".unpacked"
"""In that folder, written last: which archives were unpacked into it."""
TAR_PART = ".tar.gz"
_LARGEST = 2**28
_Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository at the pinned revision.

    Attributes:
        path: In the repository.
        bytes: As the hub lists it.
        stated: sha256 that the hub states; None of small files, which it keeps without.
        fetched: sha256 of what came; None until it came.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    path: BelowPath
    bytes: Annotated[int, Field(ge=0)]
    stated: _Sha256 | None = None
    fetched: _Sha256 | None = None


@dataclass(frozen=True, slots=True)
class PinnedRepository:
    """What the lock file says of a repository: its commit, and the files that are wanted of it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    revision: str
    files: tuple[HubFile, ...]


@dataclass(frozen=True, slots=True)
class SetFiles:
    """The files of a set that are wanted, and what is not there of them.

    Attributes:
        files: (repository, file) in the order of roles and paths.
        missing: Why the set can't be read, a line each.
    """

    files: tuple[tuple[str, HubFile], ...]
    roles: tuple[Role, ...]
    missing: tuple[str, ...] = field(default=())

    def paths(self, role: Role, data: Path) -> list[Path]:
        """Where the files of a role lie."""
        return [
            home(data, repository) / file.path
            for (repository, file), role_of_file in zip(self.files, self.roles, strict=True)
            if role_of_file == role
        ]


@dataclass(frozen=True, slots=True)
class UrlPictures:
    """Which pictures of addresses were asked for, and what came."""

    rows: int
    seed: int
    pictures: int
    failed: dict[str, int]
    digest: str


def home(data: Path, repository: str) -> Path:
    """Folder of a repository."""
    return data / repository.replace("/", "--")


def read_lock(data: Path) -> dict[str, PinnedRepository]:
    """The lock file by repositories; {} where nothing was fetched.

    Raises:
        FoundryError: It is damaged.
    """
    try:
        hint = "Bring it back from version control, or delete it and run `gme data fetch` again."
        return read_json(data / LOCK, dict[str, PinnedRepository], max_bytes=_LARGEST, hint=hint)
    except FileNotFoundError:
        return {}


def write_lock(data: Path, lock: Mapping[str, PinnedRepository]) -> None:
    """Write the lock file, whole or not at all."""
    data.mkdir(parents=True, exist_ok=True)
    raw = {name: asdict(pinned) for name, pinned in sorted(lock.items())}
    atomic_write(data / LOCK, (json.dumps(raw, indent=1) + "\n").encode())


def url_pictures_path(data: Path, repository: str) -> Path:
    """The file that says which pictures were fetched."""
    return home(data, repository) / f"{URL_PICTURES}.json"


def read_url_pictures(data: Path, repository: str) -> UrlPictures | None:
    """What was fetched; None if nothing was to its end."""
    try:
        return read_json(url_pictures_path(data, repository), UrlPictures, hint="Run `gme data fetch` again.")
    except FileNotFoundError:
        return None


def matches(file: SetFile, path: str) -> bool:
    """Whether a path is meant by a file of the registry."""
    return re.fullmatch(re.escape(file.path).replace(r"\*", "[^/]*"), path) is not None


def select(choice: SetChoice, file: SetFile, listed: Iterator[HubFile]) -> list[HubFile]:
    """The files that a line of the registry means, of rows no more than are asked for."""
    selected = sorted((entry for entry in listed if matches(file, entry.path)), key=lambda entry: entry.path)
    return selected[: choice.files] if file.role == "rows" else selected


def files_of(choice: SetChoice, data: Path) -> SetFiles:
    """The files of a set, by the lock file, and what of them is not there as it came."""
    lock = read_lock(data)
    files: list[tuple[str, HubFile]] = []
    roles: list[Role] = []
    missing: list[str] = []
    for file in choice.upstream.files:
        repository = file.repository or choice.upstream.repository
        pinned = lock.get(repository)
        selected = select(choice, file, iter(pinned.files)) if pinned else []
        if not selected:
            missing.append(f"{repository}/{file.path} was never fetched")
        missing += [problem for entry in selected if (problem := _problem(home(data, repository), entry))]
        files += [(repository, entry) for entry in selected]
        roles += [file.role] * len(selected)
    return SetFiles(tuple(files), tuple(roles), tuple(missing))


def archives_of(selected: SetFiles, data: Path) -> list[Path]:
    """Archives of pictures that must be unpacked."""
    return [path for path in selected.paths("pictures", data) if TAR_PART in path.name]


def is_unpacked(choice: SetChoice, selected: SetFiles, data: Path) -> bool:
    """Whether the archives of a set, as they are, were unpacked to their end."""
    mark = home(data, choice.upstream.repository) / UNPACKED / UNPACKED_MARK
    return mark.is_file() and mark.read_text(encoding="ascii") == archives_digest(selected)


def archives_digest(selected: SetFiles) -> str:
    """Names the archives of a set by their contents."""
    return sha256_json([entry.fetched for _, entry in selected.files if TAR_PART in entry.path])


def missing_parts(choice: SetChoice, data: Path, seed: int) -> tuple[str, ...]:
    """Why a set can't be read, a line each: files, archives not unpacked, pictures of the rows that the seed draws."""
    selected = files_of(choice, data)
    missing = selected.missing
    if not missing and archives_of(selected, data) and not is_unpacked(choice, selected, data):
        return (f"the pictures of {choice.upstream.repository} were not unpacked to their end",)
    if choice.upstream.layout != "urls":
        return missing
    fetched = read_url_pictures(data, choice.upstream.repository)
    wanted = f"the pictures of {choice.rows:,} rows drawn by seed {seed}"
    there = fetched is not None and (fetched.rows, fetched.seed) == (choice.rows, seed)
    return missing if there else (*missing, f"{wanted} were never fetched")


def files_identity(choice: SetChoice, data: Path, seed: int) -> list[str]:
    """Path and sha256 of every file of a set; none of a set that is not all there."""
    if missing_parts(choice, data, seed):
        return []
    files = [f"{repository}/{file.path} {file.fetched}" for repository, file in files_of(choice, data).files]
    pictures = read_url_pictures(data, choice.upstream.repository)
    return files + ([pictures.digest] if pictures and choice.upstream.layout == "urls" else [])


def require_fetched(choices: Sequence[SetChoice], data: Path, seed: int) -> None:
    """Refuse sets whose files are not all there.

    Raises:
        FoundryError: Names sets, the first file of each, and the command that fetches them.
    """
    missing = {choice.name: reasons for choice in choices if (reasons := missing_parts(choice, data, seed))}
    if missing:
        shown = "; ".join(f"{name}: {reasons[0]}" for name, reasons in missing.items())
        raise FoundryError(
            f"{len(missing)} of {len(choices)} public sets are not fetched: {shown}.",
            hint=f"`gme data fetch {' '.join(missing)} --config FILE` brings them; `gme data plan` tells sizes.",
        )


def changed(choice: SetChoice, data: Path) -> list[str]:
    """What differs from what came, by sha256; slow for what is large."""
    selected = files_of(choice, data)
    if selected.missing:
        return list(selected.missing)
    paths = ((home(data, repository) / file.path, file) for repository, file in selected.files)
    return [f"{path} has changed since it was fetched" for path, file in paths if sha256_file(path) != file.fetched]


def _problem(folder: Path, file: HubFile) -> str:
    path = folder / file.path
    if file.fetched is None or not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    return "" if size == file.bytes else f"{path} has {size:,} bytes, {file.bytes:,} were fetched"
