"""Types for paths in records: below the folder of the record, in normal form, and short enough for a file."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator

_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 2048
"""Limits in bytes: that of file systems for a name, and half of the kernel's for a path, since a folder precedes it."""


def check_below(path: str) -> str:
    """Returns `path`, if it may name a file below a folder; what a record from anywhere names is opened.

    Raises:
        ValueError: It is absolute, climbs, is not written plainly, or is longer than a file can be called.
    """
    # Only a path in normal form, without ``//``, ``/./`` or a slash at its end, equals its own `as_posix`.
    parts = PurePosixPath(path).parts
    plain = bool(parts) and PurePosixPath(path).as_posix() == path and ".." not in parts and not path.startswith("/")
    if not plain or "\0" in path:
        raise ValueError(f"{path!r} is no path below the folder")
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise ValueError(f"{path[:80]!r} ... is longer than a file can be called")
    return path


BelowPath = Annotated[str, AfterValidator(check_below)]
"""A path below the folder of the record that names it."""


def _check_name(name: str) -> str:
    if "/" in name:
        raise ValueError(f"{name!r} is not the name of one file")
    return check_below(name)


FileName = Annotated[str, AfterValidator(_check_name)]
"""The name of one file in a folder."""
