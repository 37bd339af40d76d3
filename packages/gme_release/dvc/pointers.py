"""DVC's pointer files: read, and restored where the bytes that they name did not arrive in the remote.

Knows no DVC beyond ``<folder>.dvc``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.structured import StructureError, read_json, read_regular, read_yaml
from gme_release.dvc.tracked_folders import TrackedFolder
from gme_release.names import TrackedFolderName

_JOURNAL = Path("runs/locks/pointers-before.json")
"""Holds the former text of pointers while new ones are made and pushed."""
_LOGGER = logging.getLogger(__name__)
ObjectName = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
"""DVC's name of a content: an md5, with ``.dir`` for a folder. It becomes a path in a store."""


class PointerOutput(BaseModel):
    """A file or folder that a pointer names; further fields of DVC's are ignored."""

    model_config = ConfigDict(frozen=True)

    md5: ObjectName
    hash: Literal["md5"]
    """DVC 2 wrote none, and its md5 of a text file is that of the text with normalised line ends."""
    size: int | None = Field(None, ge=0)
    nfiles: int | None = Field(None, ge=1)
    """Number of files; given for a folder alone."""
    cache: bool = True
    push: bool = True

    @property
    def is_stored(self) -> bool:
        """Returns whether its bytes are kept in cache and remote at all."""
        return self.cache and self.push


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True)

    outs: Annotated[tuple[PointerOutput, ...], Field(min_length=1)]


def read_outputs(pointer: Path) -> tuple[PointerOutput, ...]:
    """Returns the files and folders that a pointer names.

    Raises:
        FoundryError: The file is no pointer of DVC 3.
        FileNotFoundError: There is no such file.
    """
    try:
        return read_yaml(pointer, _Pointer).outs
    except StructureError as error:
        raise FoundryError(f"{pointer} is no pointer of DVC 3: {error.reason}", hint="Restore it from git.") from error


def read_tracked_folder(workspace: Path, path: str) -> TrackedFolder:
    """Returns the folder that ``<path>.dvc`` points to.

    Raises:
        FoundryError: The pointer is missing, or does not point to a folder.
    """
    pointer = workspace / f"{path}.dvc"
    try:
        output = read_outputs(pointer)[0]
    except FileNotFoundError as error:
        raise FoundryError(f"{path} is not under version: {pointer} is missing.", hint="Run `gme pipeline`.") from error
    if output.size is None or output.nfiles is None:
        raise FoundryError(f"{pointer} is not a DVC pointer to a folder.", hint="Restore it from git.")
    return TrackedFolder(path, output.md5, output.size, output.nfiles)


@contextmanager
def restore_pointers_on_error(workspace: Path, folders: Sequence[str]) -> Iterator[None]:
    """Restores the pointers of `folders` if the block fails, or if an earlier process was killed inside it.

    The caller holds the lock ``dvc`` (`gme_release.locks.writer_lock`).
    """
    journal = workspace / _JOURNAL
    _restore(workspace, journal)  # of a process that was killed in the block
    # On disk before the block begins: a process that is killed in the block can't restore them itself.
    before = {folder: _text(workspace / f"{folder}.dvc") for folder in folders}
    journal.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(journal, json.dumps(before).encode())
    try:
        yield
    except BaseException:
        _restore(workspace, journal)
        raise
    journal.unlink()


def _text(path: Path) -> str | None:
    try:
        return read_regular(path).decode()
    except FileNotFoundError:
        return None
    except (StructureError, UnicodeDecodeError) as error:
        raise FoundryError(f"{path} is no pointer of DVC: {error}", hint="Restore it from git.") from error


def _restore(workspace: Path, journal: Path) -> None:
    try:
        before = read_json(journal, dict[TrackedFolderName, str | None])
    except FileNotFoundError:
        return
    except StructureError as error:
        # The former texts are lost. The caller adds and pushes the folders next, which makes the pointers true again.
        _LOGGER.warning("What the pointers said before a process was killed can't be read: %s", error)
        before = {}
    for folder, text in before.items():
        pointer = workspace / f"{folder}.dvc"
        if text is None:  # the folder had no pointer before
            pointer.unlink(missing_ok=True)
        else:
            atomic_write(pointer, text.encode())
    journal.unlink()
