"""Fetches public sets from the hub: files that the registry names, at a pinned commit, checked by size and sha256.

No code of a repository is run and no loading script is fetched: only named files are downloaded, resuming where a kill
ended a download. Knows the hub; nothing of what is in the files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError, explain_os_error
from gme_data.journal import fsync_file, fsync_folder
from gme_data.progress import Progress
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.registry import PublicSet
from gme_synthesis.public.store import (
    HubFile,
    PinnedRepository,
    matches,
    read_lock,
    repository_folder,
    select_files,
    write_lock,
)
from gme_synthesis.public.unpack import unpack_pictures
from gme_synthesis.public.url_pictures import fetch_url_pictures

PARTIAL_DOWNLOADS = ".parts"
"""Folder of partial downloads, each below its sha256 or commit, so that none is resumed with another file's bytes."""
_RESERVED_BYTES = 2**30
"""Bytes of the disk that a fetch leaves free."""


def fetch_sets(choices: Sequence[SetChoice], data: Path, seed: int = 0) -> list[str]:
    """Fetches the missing files of some sets; a revision once pinned stays.

    Args:
        choices: The sets; their licences were accepted.
        data: Folder of all fetched sets.
        seed: Seed of the corpus: decides which rows' pictures are fetched, of sets that name them by URL.

    Returns:
        Paths of the files that were fetched, each below its repository.

    Raises:
        FoundryError: The hub can't be reached, a file is not in the repository or is not what the hub states, or the
            disk has no space. Files that arrived before stay.
    """
    # All sets are pinned before the first download, so that all sizes are known and a disk too small is noticed now.
    for choice in choices:
        _pin(choice, data)
    missing = _missing_files(choices, data)
    size = sum(file.bytes for _, file in missing)
    if size:
        _require_disk_space(data, size)
    fetched = []
    with Progress("fetch", size, "bytes") as progress:
        for repository, file in missing:
            fetched.append(_fetch_file(repository, file, data))
            progress.advance(file.bytes, note=file.path)
    for choice in choices:
        unpack_pictures(choice, data)
        fetch_url_pictures(choice, data, seed)
    return fetched


def _pin(choice: SetChoice, data: Path) -> None:
    """Adds revision and files of a set's repositories to the lock file."""
    upstream = choice.upstream
    for repository in upstream.repositories:
        pinned = read_lock(data).get(repository)
        pinned_files = pinned.files if pinned else ()
        patterns = upstream.patterns(repository)
        if pinned and all(any(matches(file, entry.path) for entry in pinned_files) for file in patterns):
            continue
        # Two sets may share a repository: files of the second are added at the revision that the first one pinned.
        stated_revision = upstream.revision if repository == upstream.repository else None
        revision = pinned.revision if pinned else stated_revision or _newest_revision(repository)
        pinned_paths = {entry.path for entry in pinned_files}
        added = [entry for entry in _list_files(repository, revision, upstream) if entry.path not in pinned_paths]
        write_lock(data, {**read_lock(data), repository: PinnedRepository(revision, (*pinned_files, *added))})


def _newest_revision(repository: str) -> str:
    from huggingface_hub import HfApi

    with _hub_errors(repository):
        return str(HfApi().dataset_info(repository).sha)


def _list_files(repository: str, revision: str, upstream: PublicSet) -> list[HubFile]:
    """Returns the files of a repository that the registry names.

    Raises:
        FoundryError: One of them is not in the repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _hub_errors(repository):
        tree = HfApi().list_repo_tree(repository, repo_type="dataset", revision=revision, recursive=True)
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
    for file in upstream.patterns(repository):
        if not any(matches(file, entry.path) for entry in files):
            first_files = ", ".join(sorted(entry.path for entry in files)[:5]) or "none"
            raise FoundryError(
                f"{repository} has no file {file.path} at {revision[:12]}. Its first files: {first_files}.",
                hint=f"The registry is out of date about {upstream.name}; see gme_synthesis/public/sets.yaml.",
            )
    named = [entry for entry in files if any(matches(file, entry.path) for file in upstream.patterns(repository))]
    # The hub states a sha256 for files in Git LFS alone.
    return [HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None) for entry in named]


def _missing_files(choices: Iterable[SetChoice], data: Path) -> list[tuple[str, HubFile]]:
    """Returns repository and file of what was not fetched yet, or has another size than it arrived with, each once."""
    lock = read_lock(data)
    missing: dict[tuple[str, str], HubFile] = {}
    for choice in choices:
        for file in choice.upstream.files:
            repository = file.repository or choice.upstream.repository
            for entry in select_files(choice, file, lock[repository].files):
                path = repository_folder(data, repository) / entry.path
                if entry.fetched is None or not path.is_file() or path.stat().st_size != entry.bytes:
                    missing[repository, entry.path] = entry
    return [(repository, entry) for (repository, _), entry in missing.items()]


def _fetch_file(repository: str, file: HubFile, data: Path) -> str:
    """Downloads a file, checks it, moves it into place and records it in the lock file; returns its path on the hub."""
    path = repository_folder(data, repository) / file.path
    revision = read_lock(data)[repository].revision
    part = repository_folder(data, repository) / PARTIAL_DOWNLOADS / (file.stated or revision) / file.path
    _download(repository, revision, file, part)
    size, digest = part.stat().st_size, sha256_file(part)
    if size != file.bytes or file.stated not in (None, digest) or file.fetched not in (None, digest):
        part.unlink()
        raise FoundryError(
            f"{repository}/{file.path}: what came has {size:,} bytes and sha256 {digest[:12]}, expected {file.bytes:,} "
            f"and {(file.stated or file.fetched or 'any')[:12]}.",
            hint="Run the same command again; if it stays so, the mirror that HF_ENDPOINT names is not to be trusted.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Synced before it gets its name: later checks compare sizes, which a file of zeros after a power loss would pass.
    fsync_file(part)
    part.replace(path)
    fsync_folder(path.parent)
    lock = read_lock(data)
    files = tuple(
        replace(entry, fetched=digest) if entry.path == file.path else entry for entry in lock[repository].files
    )
    write_lock(data, {**lock, repository: replace(lock[repository], files=files)})
    return f"{repository}/{file.path}"


def _download(repository: str, revision: str, file: HubFile, part: Path) -> None:
    """Downloads to `part`, from the first byte that is missing.

    `hf_hub_download` would start from zero after a kill, since it resumes a partial file only within one process.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    if part.stat().st_size > file.bytes:  # of another file, so nothing of it can be used
        part.write_bytes(b"")
    url = hf_hub_url(repository, file.path, repo_type="dataset", revision=revision)
    with part.open("r+b") as handle, _hub_errors(repository):
        received = handle.seek(0, 2)
        http_get(url, handle, resume_size=received, headers=build_hf_headers(), expected_size=file.bytes)


def _require_disk_space(data: Path, size: int) -> None:
    free = shutil.disk_usage(data).free
    if size + _RESERVED_BYTES > free:
        raise FoundryError(
            f"{data}: {size / 1e9:,.1f} GB would be fetched, {free / 1e9:,.1f} GB are free.",
            hint="Fetch fewer sets, or fewer of their files: `files: N` in the pipeline file, `--files N` here.",
        )


class _hub_errors:  # noqa: N801 - a context manager, read like a function
    """Turns the errors of the hub's client into a FoundryError that says what to do."""

    def __init__(self, repository: str) -> None:
        self._repository = repository

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        from gme_data.hub import HUB_ERRORS, in_one_line

        if not isinstance(error, HUB_ERRORS):
            return
        if isinstance(error, OSError) and explain_os_error(error):  # a full disk is no fault of the hub
            return
        raise FoundryError(
            f"{self._repository} can't be fetched: {in_one_line(error)}",
            hint="Check the network, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN where terms must be accepted on the hub; "
            "then run the same command again: it goes on from what is there.",
        ) from error
