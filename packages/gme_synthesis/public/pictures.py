"""Pictures that rows of a public set name: members of ZIP archives, unpacked files, files fetched by URL."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from gme_data.cells import CellError
from gme_data.errors import FoundryError
from gme_data.images import MAX_BYTES
from gme_data.paths import check_below

ReadPicture = Callable[[str], bytes]
"""Returns the bytes of a picture by its name in a row; raises `CellError` if there is none."""


def url_picture_name(url: str) -> str:
    """Returns the path of a URL's picture below the folder of such pictures."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    return f"{digest[:2]}/{digest}"


class Archives:
    """Members of ZIP archives, read by name without unpacking. Close it when done.

    A row's path may begin with folders that the archive lacks, such as ``images/``, or with the name of the archive.

    Args:
        paths: The archives.

    Raises:
        FoundryError: One of the files is no ZIP archive.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._stack = ExitStack()
        self._members: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo] | None] = {}
        for path in paths:
            try:
                archive = self._stack.enter_context(zipfile.ZipFile(path))
            except zipfile.BadZipFile as error:
                raise FoundryError(f"{path}: {error}.", hint="`gme data verify`, then fetch it again.") from error
            for member in archive.infolist():
                # Rows may name the archive as a folder that the names of its members lack.
                self._add(f"{path.stem}/{member.filename}", archive, member)
                self._add(member.filename, archive, member)

    def close(self) -> None:
        """Closes the archives."""
        self._stack.close()

    def read(self, name: str) -> bytes:
        """See `ReadPicture`."""
        parts = name.removeprefix("./").split("/")
        tails = ("/".join(parts[first:]) for first in range(len(parts)))
        entry = next((self._members[tail] for tail in tails if tail in self._members), None)
        if entry is None:
            raise CellError("picture-not-found", f"no archive has the picture {name!r}, or several have it")
        archive, member = entry
        if member.file_size > MAX_BYTES:
            raise CellError("picture-too-large", f"{name!r} has {member.file_size:,} bytes, {MAX_BYTES:,} allowed")
        try:
            with archive.open(member) as handle:
                # The size in a ZIP header may be a lie, so the read itself is bounded.
                return handle.read(MAX_BYTES + 1)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
            raise CellError("picture-unreadable", f"{name!r}: {error}") from error

    def _add(self, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        # None marks a name that several archives have: which of them a row means can't be told, so it means none.
        earlier = self._members.get(name, (archive, member))
        self._members[name] = (archive, member) if earlier == (archive, member) else None


def folder_reader(folder: Path) -> ReadPicture:
    """Returns a function that reads files below a folder, by the path in a row."""

    def read(name: str) -> bytes:
        try:
            path = folder / check_below(name.removeprefix("./"))
        except ValueError as error:
            raise CellError("picture-not-found", str(error)) from error
        return _read_file(path, name)

    return read


def url_reader(folder: Path) -> ReadPicture:
    """Returns a function that reads the picture that was fetched from a URL."""
    return lambda url: _read_file(folder / url_picture_name(url), url)


def _read_file(path: Path, name: str) -> bytes:
    if not path.is_file():
        raise CellError("picture-not-found", f"no picture {name!r}")
    with path.open("rb") as handle:
        return handle.read(MAX_BYTES + 1)
