"""A folder whose files were compared with its manifest, handed from that check to the code that loads them.

It gives the paths of files that the manifest names, and of no others: links, other spellings of a name, and files that
it does not name are refused. A folder without a manifest in or above it, such as a user's, is read as it is. Knows
manifests; not what the files are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from gme_data.errors import FoundryError, did_you_mean
from gme_data.manifest import NAME, Manifest, require

_MAX_LEVELS = 4
"""The most folders between an output and a file of it, such as ``tasks/test/<task>/corpus``."""


class VerifiedFolder:
    """A folder, or a part of one, all of whose files match the manifest. Only `open` and `containing` make one.

    Attributes:
        folder: Its path.
        manifest: The manifest of the complete output, of which `folder` may be a part.
    """

    __slots__ = ("_digests", "folder", "manifest")
    folder: Path
    manifest: Manifest
    _digests: dict[str, str]

    def __init__(self) -> None:
        raise TypeError("A VerifiedFolder is made by VerifiedFolder.open, which looks at its files.")

    @classmethod
    def open(cls, folder: Path, made_by: str, *, across_runs: bool = False) -> Self:
        """Compares all files of an output with its manifest.

        Each file is hashed once in a process as long as it does not change.

        Args:
            folder: The output.
            made_by: The command that makes it.
            across_runs: Whether the digest of a large file that an earlier run computed may be taken.

        Raises:
            FoundryError: It has no manifest, a file is missing or damaged, or something else lies in it.
        """
        return cls._of(folder, require(folder, made_by, across_runs=across_runs), "")

    @classmethod
    def containing(cls, folder: Path) -> Self | None:
        """Returns the files below a folder that the manifest in or above it names; None without a manifest.

        Of several manifests the outermost counts: one that is put into a part of an output names nothing.

        Raises:
            FoundryError: See `open`.
        """
        # First without following links: a part of an output that was replaced by a link is still checked as that part.
        for below in (Path(os.path.normpath(folder.absolute())), folder.resolve()):
            homes = (below, *below.parents[:_MAX_LEVELS])
            # From the outermost inwards: a manifest that was put into a part of an output must not speak for it.
            home = next((home for home in reversed(homes) if (home / NAME).exists()), None)
            if home is not None:
                manifest = require(home, "pipeline", across_runs=True)
                return cls._of(folder, manifest, "" if below == home else f"{below.relative_to(home).as_posix()}/")
        return None

    @classmethod
    def _of(cls, folder: Path, manifest: Manifest, part: str) -> Self:
        verified = cls.__new__(cls)
        verified.folder, verified.manifest = folder, manifest
        verified._digests = {
            entry.path.removeprefix(part): entry.sha256 for entry in manifest.files if entry.path.startswith(part)
        }
        return verified

    @property
    def names(self) -> tuple[str, ...]:
        """The files, by their paths below the folder, sorted."""
        return tuple(sorted(self._digests))

    def __contains__(self, name: object) -> bool:
        return name in self._digests

    def digest(self, name: str) -> str:
        """Returns the sha256 of a file, which was just compared. Raises as `path`."""
        if name not in self._digests:
            raise FoundryError(
                f"{self.folder / name} is not named by the manifest of its folder.{did_you_mean(name, self._digests)}",
                hint="An output is read by its manifest, and by nothing else.",
            )
        return self._digests[name]

    def path(self, name: str) -> Path:
        """Returns the path of a file.

        Raises:
            FoundryError: The manifest does not name it.
        """
        self.digest(name)
        return self.folder / name


def files_in(folder: Path) -> list[str]:
    """Names of the visible files right in a folder, sorted: those that the manifest in or above it names, else all.

    Raises:
        FoundryError: See `VerifiedFolder.open`.
    """
    verified = VerifiedFolder.containing(folder)
    if verified is not None:
        return [name for name in verified.names if "/" not in name]
    return sorted(path.name for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))


def folders_with(folder: Path, name: str) -> list[str]:
    """Names of the visible folders right in a folder that hold a file `name`, sorted; which count, as for `files_in`.

    Raises:
        FoundryError: See `VerifiedFolder.open`.
    """
    verified = VerifiedFolder.containing(folder)
    if verified is not None:
        parts = (path.split("/") for path in verified.names)
        return sorted(parent for parent, *tail in parts if tail == [name])
    return sorted(path.parent.name for path in folder.glob(f"*/{name}") if not path.parent.name.startswith("."))
