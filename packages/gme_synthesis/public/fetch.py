"""Brings public sets from the hub: files that the registry names, at a pinned commit, checked by size and sha256.

No code of a repository is run and no loading script is fetched: only named files, by plain downloads that go on where a
killed one stopped. Knows the hub; nothing of what is in the files.
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
from gme_synthesis.public.store import HubFile, PinnedRepository, home, matches, read_lock, select, write_lock
from gme_synthesis.public.unpack import unpack_pictures
from gme_synthesis.public.url_pictures import fetch_url_pictures

PARTS = ".parts"
"""Folder of unfinished downloads, by what the hub states of them, so that nothing goes on with another file's bytes."""
_SLACK = 2**30
"""Bytes that stay free on the disk."""


def fetch_sets(choices: Sequence[SetChoice], data: Path, seed: int = 0) -> list[str]:
    """Bring what is not there of some sets; a revision once pinned stays.

    Args:
        choices: The sets; their licences were accepted.
        data: Folder of all fetched sets.
        seed: That of the corpus: decides which rows' pictures are fetched, of sets that name them by address.

    Returns:
        Paths that came.

    Raises:
        FoundryError: The hub can't be reached, a file is not in the repository or is not what the hub states, or the
            disk has no room. What came before stays.
    """
    for choice in choices:
        _pin(choice, data)
    wanted = _wanted(choices, data)
    _require_room(data, sum(file.bytes for _, file in wanted))
    fetched = []
    with Progress("fetch", sum(file.bytes for _, file in wanted), "bytes") as progress:
        for repository, file in wanted:
            fetched.append(_bring(repository, file, data))
            progress.advance(file.bytes, note=file.path)
    for choice in choices:
        unpack_pictures(choice, data)
        fetch_url_pictures(choice, data, seed)
    return fetched


def _pin(choice: SetChoice, data: Path) -> None:
    """Note revision and files of a set's repositories in the lock file."""
    upstream = choice.upstream
    for repository in upstream.repositories:
        pinned = read_lock(data).get(repository)
        known = pinned.files if pinned else ()
        if pinned and all(any(matches(file, entry.path) for entry in known) for file in upstream.patterns(repository)):
            continue
        stated_revision = upstream.revision if repository == upstream.repository else None
        revision = pinned.revision if pinned else stated_revision or _newest(repository)
        listed = [
            entry for entry in _list(repository, revision, upstream) if entry.path not in {old.path for old in known}
        ]
        write_lock(data, {**read_lock(data), repository: PinnedRepository(revision, (*known, *listed))})


def _newest(repository: str) -> str:
    from huggingface_hub import HfApi

    with _hub(repository):
        return str(HfApi().dataset_info(repository).sha)


def _list(repository: str, revision: str, upstream: PublicSet) -> list[HubFile]:
    """The files of a repository that the registry names.

    Raises:
        FoundryError: One of them is not there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _hub(repository):
        tree = HfApi().list_repo_tree(repository, repo_type="dataset", revision=revision, recursive=True)
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
    for file in upstream.patterns(repository):
        if not any(matches(file, entry.path) for entry in files):
            there = ", ".join(sorted(entry.path for entry in files)[:5]) or "none"
            raise FoundryError(
                f"{repository} has no file {file.path} at {revision[:12]}. Its first files: {there}.",
                hint=f"The registry is out of date about {upstream.name}; see gme_synthesis/public/sets.yaml.",
            )
    named = [entry for entry in files if any(matches(file, entry.path) for file in upstream.patterns(repository))]
    return [HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None) for entry in named]


def _wanted(choices: Iterable[SetChoice], data: Path) -> list[tuple[str, HubFile]]:
    """Files of the sets that did not come yet, or are not as they came, each once."""
    lock = read_lock(data)
    wanted: dict[tuple[str, str], HubFile] = {}
    for choice in choices:
        for file in choice.upstream.files:
            repository = file.repository or choice.upstream.repository
            for entry in select(choice, file, iter(lock[repository].files)):
                path = home(data, repository) / entry.path
                if entry.fetched is None or not path.is_file() or path.stat().st_size != entry.bytes:
                    wanted[repository, entry.path] = entry
    return [(repository, entry) for (repository, _), entry in wanted.items()]


def _bring(repository: str, file: HubFile, data: Path) -> str:
    """Download a file, check it, put it in its place and note it in the lock file."""
    path = home(data, repository) / file.path
    part = home(data, repository) / PARTS / (file.stated or read_lock(data)[repository].revision) / file.path
    _download(repository, read_lock(data)[repository].revision, file, part)
    size, digest = part.stat().st_size, sha256_file(part)
    if size != file.bytes or file.stated not in (None, digest) or file.fetched not in (None, digest):
        part.unlink()
        raise FoundryError(
            f"{repository}/{file.path}: what came has {size:,} bytes and sha256 {digest[:12]}, expected {file.bytes:,} "
            f"and {(file.stated or file.fetched or 'any')[:12]}.",
            hint="Run the same command again; if it stays so, the mirror that HF_ENDPOINT names is not to be trusted.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """Download to `part`, from the first byte that is missing: the client itself begins anew in each process."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    if part.stat().st_size > file.bytes:
        part.write_bytes(b"")
    url = hf_hub_url(repository, file.path, repo_type="dataset", revision=revision)
    with part.open("r+b") as handle, _hub(repository):
        there = handle.seek(0, 2)
        http_get(url, handle, resume_size=there, headers=build_hf_headers(), expected_size=file.bytes)


def _require_room(data: Path, wanted: int) -> None:
    if not wanted:
        return
    free = shutil.disk_usage(data).free
    if wanted + _SLACK > free:
        raise FoundryError(
            f"{data}: {wanted / 1e9:,.1f} GB would be fetched, {free / 1e9:,.1f} GB are free.",
            hint="Fetch fewer sets, or fewer of their files: `files: N` in the pipeline file, `--files N` here.",
        )


class _hub:  # noqa: N801 - a context manager, read like a function
    """Turns what the client of the hub raises into an error that says what to do."""

    def __init__(self, repository: str) -> None:
        self._repository = repository

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        from gme_data.hub import HUB_ERRORS, in_one_line

        if not isinstance(error, HUB_ERRORS):
            return
        if isinstance(error, OSError) and explain_os_error(error):
            return
        raise FoundryError(
            f"{self._repository} can't be fetched: {in_one_line(error)}",
            hint="Check the network, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN where terms must be accepted on the hub; "
            "then run the same command again: it goes on from what is there.",
        ) from error
