"""Datasets and checkpoints under version: pointers in the workspace, bytes in a remote.

A pointer (``data.dvc``) depends on file names and contents alone: manifests and staging folders are ignored, see
``docs/decisions/0002-manifest-outside-dvc.md``. What is returned has been pushed and was looked up in the remote, so
no record ever names bytes that can't be fetched. Makes no git commit. Knows no MLflow.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.dvc.command import run_dvc
from gme_release.dvc.config import cache_folder, ensure_dvc_config, remote_name, remote_url, write_local_config
from gme_release.dvc.object_store import Store, missing_objects, remove_listings, scrub, store_at
from gme_release.dvc.pointers import read_tracked_folder, restore_pointers_on_error
from gme_release.dvc.tracked_folders import TrackedFolder, VersionedOutputs
from gme_release.locks import writer_lock
from gme_release.names import ENVIRONMENT_REMOTE
from gme_release.partial_files import remove_partial_files
from gme_release.settings import RecordSettings

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Remote:
    name: str
    url: str
    store: Store


def version_outputs(workspace: Path, config: ReleaseConfig) -> VersionedOutputs:
    """Adds the tracked folders to DVC, pushes what the remote lacks, and checks that it arrived. It is idempotent.

    Where the push fails, the pointers get their former text: nothing points at bytes that were not pushed.

    Raises:
        FoundryError: A folder is missing, the remote cannot be written, or bytes are missing in it after the push.
    """
    _require_folders(workspace, config.tracked)
    with writer_lock(workspace, "dvc"):
        remove_partial_files(workspace)
        ensure_dvc_config(workspace, config)
        url = remote_url(workspace, config)
        remote = _Remote(remote_name(config), url, store_at(workspace, url))
        if config.scrub:
            stores = {cache_folder(workspace), *([remote.store] if isinstance(remote.store, Path) else [])}
            with ThreadPoolExecutor() as pool:
                list(pool.map(scrub, stores))
        # `dvc add` rewrites the pointers before anything is pushed, so a push that fails must take them back.
        with restore_pointers_on_error(workspace, config.tracked):
            run_dvc(workspace, "add", *config.tracked)
            folders = tuple(read_tracked_folder(workspace, path) for path in config.tracked)
            _push(workspace, remote, folders)
    return VersionedOutputs(folders, url)


def pull_folder(workspace: Path, path: str) -> Path:
    """Pulls the tracked folder `path` from the remote into the workspace; DVC hashes every object on its way.

    Raises:
        FoundryError: There is no pointer, or the remote lacks bytes, or they are damaged.
    """
    folder = read_tracked_folder(workspace, path)
    with writer_lock(workspace, "dvc"):
        write_local_config(workspace)
        remote = ["--remote", ENVIRONMENT_REMOTE] if RecordSettings.from_environment().dvc_remote else []
        run_dvc(workspace, "pull", *remote, folder.pointer)
    return workspace / path


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
    """Pushes the folders of which the remote lacks an object, and checks that all objects arrived."""
    try:
        incomplete = [folder for folder in folders if missing_objects(remote.store, folder.md5)]
        if incomplete:
            # DVC takes the listing of a folder as proof of its files, and would send none of them where it is.
            remove_listings(remote.store, (folder.md5 for folder in incomplete))
            run_dvc(workspace, "push", "--remote", remote.name, *(folder.pointer for folder in incomplete))
        missing = [name for folder in incomplete for name in missing_objects(remote.store, folder.md5)]
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
