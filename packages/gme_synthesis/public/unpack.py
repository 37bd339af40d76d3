"""Unpacks archives of pictures that allow no random access: parts of one ``.tar.gz``.

Only pictures are unpacked, under plain names below one folder, none larger than a picture may be. ZIP archives stay
packed, since their members can be read by name. Knows archives; not which set they are of.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from gme_data.errors import FoundryError
from gme_data.images import MAX_BYTES
from gme_data.journal import atomic_write
from gme_data.paths import check_below
from gme_data.progress import Progress
from gme_synthesis.corpus.import_pictures import PICTURE_SUFFIXES
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.store import (
    UNPACKED,
    UNPACKED_MARK,
    archives_digest,
    archives_of,
    files_of,
    is_unpacked,
    repository_folder,
)


def unpack_pictures(choice: SetChoice, data: Path) -> int:
    """Unpacks the picture archives of a set, unless they are unpacked; continues where a killed run stopped.

    Returns:
        Number of pictures written.

    Raises:
        FoundryError: An archive is damaged.
    """
    selected = files_of(choice, data)
    parts = archives_of(selected, data)
    if not parts or is_unpacked(choice, selected, data):
        return 0
    folder = repository_folder(data, choice.upstream.repository) / UNPACKED
    folder.mkdir(parents=True, exist_ok=True)
    written = _unpack(parts, folder)
    # Last, so that the mark says that all pictures are there.
    atomic_write(folder / UNPACKED_MARK, archives_digest(selected).encode())
    return written


def _unpack(parts: Sequence[Path], folder: Path) -> int:
    written = 0
    with _ConcatenatedFiles(parts) as stream, Progress("unpack", None, "pictures") as progress:
        try:
            with tarfile.open(fileobj=stream, mode="r|gz") as archive:
                for member in archive:
                    written += _write(archive, member, folder)
                    progress.advance()
        except (tarfile.TarError, EOFError, OSError) as error:
            # An OSError with a number is the system's, such as of a full disk, and says by itself what is wrong.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise FoundryError(
                f"{parts[0]}: the archive can't be unpacked: {error}.", hint="`gme data verify`, then fetch it again."
            ) from error
    return written


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> int:
    """Writes a member if it is a missing picture, not a link, device or other file; returns the number of pictures."""
    name = member.name.removeprefix("./")
    if not member.isfile() or Path(name).suffix.lower() not in PICTURE_SUFFIXES or member.size > MAX_BYTES:
        return 0
    try:
        path = folder / check_below(name)
    except ValueError as error:
        raise FoundryError(f"{name!r} of an archive would be written outside of {folder}.") from error
    # Files get their names when they are complete, so a killed run's pictures need not be written again.
    if path.is_file() and path.stat().st_size == member.size:
        return 0
    content = archive.extractfile(member)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content.read() if content else b"")
    part.replace(path)
    return 1


class _ConcatenatedFiles(io.RawIOBase):
    """A stream of the bytes of several files, one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Returns up to `size` bytes; none at the end of the last file."""
        while True:
            if self._open is None:
                if not self._paths:
                    return b""
                self._open = self._paths.pop(0).open("rb")
            if data := self._open.read(size):
                return data
            self._open.close()
            self._open = None

    def close(self) -> None:
        """Closes the current file."""
        if self._open:
            self._open.close()
            self._open = None
        super().close()
