"""What DVC holds of a workspace: its tracked folders, each by DVC's name of the content. Reads no file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrackedFolder:
    """A folder and the content that its pointer names.

    Attributes:
        path: The folder, relative to the workspace.
        md5: DVC's name of the content, ``<32 hex>.dir``; an identifier, not a proof against forgery.
        size: Size of all files in bytes.
        nfiles: Number of files.
    """

    path: str
    md5: str
    size: int
    nfiles: int

    @property
    def pointer(self) -> str:
        """Returns the path of the pointer file, relative to the workspace."""
        return f"{self.path}.dvc"


@dataclass(frozen=True, slots=True)
class VersionedOutputs:
    """The folders that were pushed, and the URL of their remote, as configured."""

    folders: tuple[TrackedFolder, ...]
    remote: str

    def of(self, path: str) -> TrackedFolder | None:
        """Returns the tracked folder that holds `path` (relative to the workspace); None if none does."""
        return next((folder for folder in self.folders if Path(path).is_relative_to(folder.path)), None)
