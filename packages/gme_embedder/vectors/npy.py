"""Arrays on disk: written completely or not at all, checked when they are read. Knows no folder's layout."""

from __future__ import annotations

import io
import stat
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.journal import atomic_write


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Writes an array; the file is on disk, or not there, when the call returns or is killed."""
    atomic_write(path, npy_bytes(array))


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Returns an array as the content of a file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def open_npy(path: Path) -> NDArray[Any]:
    """Returns the array of a file, memory-mapped and read-only.

    Raises:
        FoundryError: The file is cut off, or no array of plain numbers: its header is damaged, or it holds objects. It
            is no regular file; see `require_regular`.
        OSError: The file can't be read at all, which says nothing of its content.
    """
    require_regular(path)
    # Not by np.load, which would open an archive or a pickle as well. The header's parsers raise errors of many kinds.
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, SyntaxError, OverflowError, EOFError, tokenize.TokenError) as error:
        raise FoundryError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def require_regular(path: Path) -> None:
    """Refuses a link, which may lead anywhere, and a pipe, which never ends, in the place of a file.

    Raises:
        FoundryError: It is no regular file.
        OSError: It is not there.
    """
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "no regular file"
        raise FoundryError(f"{path} is {what}; expected a file in its folder.")
