"""Datasets and checkpoints under version: DVC pointers in the workspace, bytes in a remote.

A pointer (``data.dvc``) depends on file names and contents alone: manifests and staging folders are ignored, see
``docs/decisions/0002-manifest-outside-dvc.md``. What is returned has been pushed and seen in the remote, so no record
ever names bytes that cannot be fetched. Makes no git commit. Knows no MLflow.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.dvc_command import run_dvc
from gme_release.dvc_config import cache_folder, prepare, remote_name, remote_url, settle_local
from gme_release.leftovers import sweep
from gme_release.locks import writer_lock
from gme_release.names import ENVIRONMENT_REMOTE
from gme_release.pointers import pointers_kept, read_outputs
from gme_release.scrub import Store, forget_listings, missing_objects, scrub, store_at
from gme_release.settings import RecordSettings

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackedFolder:
    """One folder behind its pointer.

    Attributes:
        path: The folder, relative to the workspace.
        md5: DVC's name of the content, ``<32 hex>.dir``; an identifier, no proof against forgery.
        size: Bytes of all files.
        nfiles: Number of files.
    """

    path: str
    md5: str
    size: int
    nfiles: int

    @property
    def pointer(self) -> str:
        """The pointer file, relative to the workspace."""
        return f"{self.path}.dvc"


@dataclass(frozen=True, slots=True)
class VersionedOutputs:
    """What was pushed, and to which remote (its URL as configured)."""

    folders: tuple[TrackedFolder, ...]
    remote: str

    def of(self, path: str) -> TrackedFolder | None:
        """The tracked folder that holds `path` (relative to the workspace)."""
        return next((folder for folder in self.folders if Path(path).is_relative_to(folder.path)), None)


@dataclass(frozen=True, slots=True)
class _Remote:
    name: str
    url: str
    store: Store


def version_outputs(workspace: Path, config: ReleaseConfig) -> VersionedOutputs:
    """Add the tracked folders, push what the remote lacks, and see in it that it arrived. Idempotent.

    Where the push fails, the pointers say again what they said before: nothing points at what was not pushed.

    Raises:
        FoundryError: A folder is missing, the remote cannot be written, or bytes are missing in it after the push.
    """
    _require_folders(workspace, config.tracked)
    with writer_lock(workspace, "dvc"):
        sweep(workspace)
        prepare(workspace, config)
        url = remote_url(workspace, config)
        remote = _Remote(remote_name(config), url, store_at(workspace, url))
        if config.scrub:
            stores = {cache_folder(workspace), *([remote.store] if isinstance(remote.store, Path) else [])}
            with ThreadPoolExecutor() as pool:
                list(pool.map(scrub, stores))
        with pointers_kept(workspace, config.tracked):
            run_dvc(workspace, "add", *config.tracked)
            folders = tuple(read_pointer(workspace, path) for path in config.tracked)
            _push(workspace, remote, folders)
    return VersionedOutputs(folders, url)


def fetch(workspace: Path, path: str) -> Path:
    """Fetch the tracked folder `path` from the remote into the workspace; every object is hashed on its way.

    Raises:
        FoundryError: No pointer, the remote lacks bytes, or they are damaged.
    """
    folder = read_pointer(workspace, path)
    with writer_lock(workspace, "dvc"):
        settle_local(workspace)
        elsewhere = RecordSettings.from_environment().dvc_remote
        run_dvc(workspace, "pull", *(["--remote", ENVIRONMENT_REMOTE] if elsewhere else []), folder.pointer)
    return workspace / path


def read_pointer(workspace: Path, path: str) -> TrackedFolder:
    """The content of ``<path>.dvc``.

    Raises:
        FoundryError: The pointer is missing or is none of a folder.
    """
    pointer = workspace / f"{path}.dvc"
    try:
        found = read_outputs(pointer)[0]
    except FileNotFoundError as error:
        raise FoundryError(f"{path} is not under version: {pointer} is missing.", hint="Run `gme pipeline`.") from error
    if found.size is None or found.nfiles is None:
        raise FoundryError(f"{pointer} is not a DVC pointer to a folder.", hint="Restore it from git.")
    return TrackedFolder(path, found.md5, found.size, found.nfiles)


def _require_folders(workspace: Path, paths: tuple[str, ...]) -> None:
    missing = [path for path in paths if not (workspace / path).is_dir()]
    if missing:
        raise FoundryError(
            f"Nothing to version: {', '.join(missing)} not found in {workspace}", hint="Run `gme pipeline`."
        )
    empty = [path for path in paths if not any(file.is_file() for file in (workspace / path).rglob("*"))]
    if empty:
        raise FoundryError(
            f"Nothing to version: {', '.join(empty)} in {workspace} holds no file.",
            hint="Run `gme pipeline`, or take the folder out of release.tracked.",
        )


def _push(workspace: Path, remote: _Remote, folders: tuple[TrackedFolder, ...]) -> None:
    """Send what the remote lacks, if it lacks anything, and see in it that it arrived."""
    try:
        lacking = [folder for folder in folders if missing_objects(remote.store, folder.md5)]
        if lacking:
            # DVC looks no further than the listing of a folder: where that is, it would send none of the files.
            forget_listings(remote.store, (folder.md5 for folder in lacking))
            run_dvc(workspace, "push", "--remote", remote.name, *(folder.pointer for folder in lacking))
        missing = [name for folder in lacking for name in missing_objects(remote.store, folder.md5)]
    except FoundryError as error:
        raise FoundryError(
            f"The DVC remote '{remote.name}' ({remote.url}) does not take the bytes: {error}",
            hint="Nothing points at them yet, and finished work is kept. See that the remote exists, answers and may be"
            " written, or name another with GME_DVC_REMOTE; then run the same command again.",
            exit_code=1,
        ) from error
    if missing:
        raise FoundryError(
            f"The push is incomplete: {len(missing)} object(s) not in the remote '{remote.name}', first {missing[0]}.",
            hint="Run the same command again; only what is missing is sent.",
            exit_code=1,
        )
    _LOGGER.info("In the remote: %s", ", ".join(f"{f.path} ({f.nfiles} files, {f.size / 1e6:.0f} MB)" for f in folders))
