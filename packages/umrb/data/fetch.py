"""Fetches the data of a suite at pinned revisions, records them in a lock file, and verifies them.

Each dataset repository has a folder of its own, and ``umrb.lock.json`` beside them holds revision, bytes and sha256 of
every file. The folder may be versioned by DVC. Knows repositories; no model, no metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gme_data.digests import sha256_file, sha256_json
from gme_data.errors import FoundryError, explain_os_error
from gme_data.hub import HUB_ERRORS, in_one_line
from gme_data.manifest import list_files
from gme_data.progress import Progress
from umrb.data.fetch_lock import FetchedRepository, read_lock, write_lock
from umrb.data.loading import data_version, load_suite_task, tasks_of
from umrb.data.mteb_data import local_copy, mteb_task
from umrb.registry import Dataset

_BY_HAND = {
    "disk": "Its tasks are files of your own already.",
    "dci": "Its photos are part of SA-1B, whose terms each user accepts: see the DCI repository, then docs/umrb.md.",
    "flickr30k-cn": "Its authors hand it out on request: see Chinese-CLIP, then docs/umrb.md for the layout.",
}
_MMEB = "TIGER-Lab/MMEB-eval"
_FOLDERS = {"dci": "densely_captioned_images", "flickr30k-cn": "Flickr30k-CN", "mmeb": "MMEB-eval"}


@dataclass(frozen=True, slots=True)
class Repository:
    """A dataset repository on the hub.

    Attributes:
        name: ``owner/name``.
        revision: The commit that is fetched; None for the newest commit at the first fetch, which the lock file records.
        licence: Licence as mteb states it.
        tasks: Names of the tasks that read it.
    """

    name: str
    revision: str | None
    licence: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataCheck:
    """The result of verifying a task's data.

    Attributes:
        task: Name of the task.
        checked: Whether there were data to verify.
        problems: What is wrong with the data; empty if nothing is.
    """

    task: str
    checked: bool
    problems: tuple[str, ...]


def repositories(datasets: Sequence[Dataset]) -> list[Repository]:
    """Return the repositories that some datasets are read from, each once, in the order of the datasets."""
    repositories: dict[str, Repository] = {}
    for dataset, task in tasks_of(datasets):
        if dataset.source not in _BY_HAND:
            name, revision, licence = _origin(dataset, task)
            other_tasks = repositories[name].tasks if name in repositories else ()
            repositories[name] = Repository(name, revision, licence, (*other_tasks, task))
    return list(repositories.values())


def by_hand(datasets: Sequence[Dataset]) -> dict[str, str]:
    """Return what a user must do for the datasets that are not on the hub, by their id."""
    return {dataset.id: _BY_HAND[dataset.source] for dataset in datasets if dataset.source in _BY_HAND}


def fetch(datasets: Sequence[Dataset], data: Path) -> list[Repository]:
    """Fetch the repositories of some datasets to `data`, unless they are complete and at the right revision.

    Returns:
        The repositories that were fetched.

    Raises:
        FoundryError: The hub can't be reached, or a repository or revision does not exist.
    """
    required = repositories(datasets)
    fetched = []
    with Progress("fetch", len(required), "repositories") as progress:
        for repository in required:
            if not _is_complete(repository, data):
                fetched.append(_fetch(repository, data))
            progress.advance(note=repository.name)
    return fetched


def verify(datasets: Sequence[Dataset], data: Path) -> Iterator[DataCheck]:
    """Check files against the lock file, and tasks for integrity and expected sizes."""
    lock = read_lock(data)
    for dataset, task in tasks_of(datasets):
        folder = _folder(dataset, task, data)
        if not folder.exists():
            yield DataCheck(task, checked=False, problems=(f"{folder} is not there",))
            continue
        is_fetched = dataset.source not in _BY_HAND
        problems = list(_file_problems(folder, lock.get(_origin(dataset, task)[0]))) if is_fetched else []
        try:
            problems += load_suite_task(dataset, task, data).defects
        except FoundryError as error:
            problems.append(str(error))
        yield DataCheck(task, checked=True, problems=tuple(problems))


def fetched_state(dataset: Dataset, task: str, data: Path) -> str | None:
    """Name the state of a task's data in `data`; None if they are not there.

    Fetched data have the same name on every machine, a digest of what the lock file says of them; data that were put
    there by hand are named by sizes and times of their files.
    """
    folder = _folder(dataset, task, data)
    if not folder.exists():
        return None
    record = None if dataset.source in _BY_HAND else read_lock(data).get(_origin(dataset, task)[0])
    if record is None:
        return data_version(dataset, task, data)
    return sha256_json([record.revision, [[entry.path, entry.sha256] for entry in record.files]])


def _origin(dataset: Dataset, task: str) -> tuple[str, str | None, str]:
    """Repository, revision and licence of a task's data."""
    if dataset.source != "mteb":
        return _MMEB, None, "as the source of each task"
    metadata = mteb_task(task).metadata
    return str(metadata.dataset["path"]), str(metadata.dataset["revision"]), str(metadata.license)


def _folder(dataset: Dataset, task: str, data: Path) -> Path:
    if dataset.source == "disk":
        return data / task
    if dataset.source in _FOLDERS:
        return data / _FOLDERS[dataset.source]
    return _repository_folder(_origin(dataset, task)[0], data)


def _repository_folder(repository: str, data: Path) -> Path:
    return data / _FOLDERS["mmeb"] if repository == _MMEB else local_copy(data, repository)


def _is_complete(repository: Repository, data: Path) -> bool:
    """Whether the lock file names the repository at its revision, and its files have the sizes recorded there."""
    record = read_lock(data).get(repository.name)
    if record is None or not record.files:
        return False
    # Digests are left to `verify`, since they cost a read of every byte.
    paths = [(_repository_folder(repository.name, data) / entry.path, entry) for entry in record.files]
    sizes_match = all(path.is_file() and path.stat().st_size == entry.bytes for path, entry in paths)
    return sizes_match and repository.revision in (None, record.revision)


def _fetch(repository: Repository, data: Path) -> Repository:
    from huggingface_hub import HfApi, snapshot_download

    folder = _repository_folder(repository.name, data)
    try:
        # MMEB has no pinned revision; the newest one is recorded below.
        revision = repository.revision or HfApi().dataset_info(repository.name).sha
        snapshot_download(repository.name, repo_type="dataset", revision=revision, local_dir=folder)
    except HUB_ERRORS as error:
        if isinstance(error, OSError) and explain_os_error(error):
            # A full disk and the like are no fault of the hub; the command line explains them.
            raise
        raise FoundryError(
            f"{repository.name} can't be fetched at {repository.revision or 'its newest'}: {in_one_line(error)}",
            hint="Check the network and HF_HUB_OFFLINE, then run the same command again; what is there is kept.",
        ) from error
    record = FetchedRepository(str(revision), repository.licence, list_files(folder))
    # After each repository, so that a fetch that is killed goes on with the next one.
    write_lock(data, {**read_lock(data), repository.name: record})
    return Repository(repository.name, revision, repository.licence, repository.tasks)


def _file_problems(folder: Path, record: FetchedRepository | None) -> Iterator[str]:
    if record is None:
        yield f"{folder} was not fetched by `gme umrb fetch`: its revision is not known"
        return
    for entry in record.files:
        path = folder / entry.path
        if not path.is_file():
            yield f"{path} is missing"
        elif path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            yield f"{path} has changed since it was fetched"
