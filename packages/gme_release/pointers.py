"""DVC's pointer files: what they name, and taking them back where the bytes they name did not arrive.

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
from gme_release.names import TrackedFolderName

_BEFORE = Path("runs/locks/pointers-before.json")
_LOGGER = logging.getLogger(__name__)
ObjectName = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
"""DVC's name of a content; it becomes a path in a store."""


class Output(BaseModel):
    """What a pointer says of a file or folder; DVC's further fields are DVC's."""

    model_config = ConfigDict(frozen=True)

    md5: ObjectName
    hash: Literal["md5"]
    """Pointers of DVC 2 have none, and other objects behind the same digits."""
    size: int | None = Field(None, ge=0)
    nfiles: int | None = Field(None, ge=1)
    """Of a folder."""
    cache: bool = True
    push: bool = True

    @property
    def is_stored(self) -> bool:
        """Whether its bytes are kept in cache and remote at all."""
        return self.cache and self.push


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True)

    outs: Annotated[tuple[Output, ...], Field(min_length=1)]


def read_outputs(pointer: Path) -> tuple[Output, ...]:
    """What a pointer file names.

    Raises:
        FoundryError: It is no pointer of DVC 3.
        FileNotFoundError: There is no such file.
    """
    try:
        return read_yaml(pointer, _Pointer).outs
    except StructureError as error:
        raise FoundryError(f"{pointer} is no pointer of DVC 3: {error.reason}", hint="Restore it from git.") from error


@contextmanager
def pointers_kept(workspace: Path, folders: Sequence[str]) -> Iterator[None]:
    """Give the pointers of `folders` their former text if the block fails, or if a process was killed inside it before.

    The caller holds the lock of the one writer.
    """
    journal = workspace / _BEFORE
    _restore(workspace, journal)
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
        # What they said is lost; the push that follows makes them true again.
        _LOGGER.warning("What the pointers said before a process was killed can't be read: %s", error)
        before = {}
    for folder, text in before.items():
        pointer = workspace / f"{folder}.dvc"
        if text is None:
            pointer.unlink(missing_ok=True)
        else:
            atomic_write(pointer, text.encode())
    journal.unlink()
