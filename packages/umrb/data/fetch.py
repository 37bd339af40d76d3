"""Data of a suite on disk: fetched at pinned revisions, recorded, and verified.

Each dataset repository has a folder of its own, and ``umrb.lock.json`` beside them says of every file what it was when
it came: revision, bytes, sha256. The whole folder may be versioned by DVC. Knows repositories; no model, no metric.
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
from umrb.data.loading import data_version, load_suite_task, units
from umrb.data.mteb_data import local_copy, mteb_task
from umrb.registry import Dataset

_BY_HAND = {
    "disk": "Its tasks are files of your own already.",
    "dci": "Its photos are part of SA-1B, whose terms each user accepts: see the DCI repository, then docs/umrb.md.",
    "flickr30k-cn": "Its authors hand it out on request: see Chinese-CLIP, then docs/umrb.md for the layout.",
}
_MMEB = "TIGER-Lab/MMEB-eval"
_HOMES = {"dci": "densely_captioned_images", "flickr30k-cn": "Flickr30k-CN", "mmeb": "MMEB-eval"}


@dataclass(frozen=True, slots=True)
class Repository:
    """A dataset repository on the hub.

    Attributes:
        name: ``owner/name``.
        revision: The commit that is fetched; None for what is newest when it is fetched first, which is recorded.
        licence: As mteb states it.
        tasks: What reads it.
    """

    name: str
    revision: str | None
    licence: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What is wrong with a task's data; nothing, if `problems` is empty.

    Attributes:
        checked: Whether the data were there to be checked.
    """

    task: str
    checked: bool
    problems: tuple[str, ...]


def repositories(datasets: Sequence[Dataset]) -> list[Repository]:
    """What some datasets are read from on the hub, each once, in their order."""
    found: dict[str, Repository] = {}
    for dataset, task in units(datasets):
        if dataset.source not in _BY_HAND:
            name, revision, licence = _origin(dataset, task)
            before = found[name].tasks if name in found else ()
            found[name] = Repository(name, revision, licence, (*before, task))
    return list(found.values())


def by_hand(datasets: Sequence[Dataset]) -> dict[str, str]:
    """What must be done for the datasets that are not on the hub, by their id."""
    return {dataset.id: _BY_HAND[dataset.source] for dataset in datasets if dataset.source in _BY_HAND}


def fetch(datasets: Sequence[Dataset], data: Path) -> list[Repository]:
    """Bring the repositories of some datasets to `data`; what is there, whole and at the right revision, is left alone.

    Returns:
        Those that were fetched.

    Raises:
        FoundryError: The hub can't be reached, or a repository or revision is not there.
    """
    wanted = repositories(datasets)
    fetched = []
    with Progress("fetch", len(wanted), "repositories") as progress:
        for repository in wanted:
            if not _is_there(repository, data):
                fetched.append(_fetch(repository, data))
            progress.advance(note=repository.name)
    return fetched


def verify(datasets: Sequence[Dataset], data: Path) -> Iterator[DataCheck]:
    """Check files against the record of their coming, and tasks for integrity and expected sizes."""
    locked = read_lock(data)
    for dataset, task in units(datasets):
        folder = _folder(dataset, task, data)
        if not folder.exists():
            yield DataCheck(task, checked=False, problems=(f"{folder} is not there",))
            continue
        of_hub = dataset.source not in _BY_HAND
        problems = list(_file_problems(folder, locked.get(_origin(dataset, task)[0]))) if of_hub else []
        try:
            problems += load_suite_task(dataset, task, data).defects
        except FoundryError as error:
            problems.append(str(error))
        yield DataCheck(task, checked=True, problems=tuple(problems))


def fetched_state(dataset: Dataset, task: str, data: Path) -> str | None:
    """Names the data of a task in `data`, the same on every machine that fetched them; None if they are not there.

    What `fetch` brought is named by its record; what was put there by hand, by sizes and times of its files.
    """
    folder = _folder(dataset, task, data)
    if not folder.exists():
        return None
    record = None if dataset.source in _BY_HAND else read_lock(data).get(_origin(dataset, task)[0])
    if record is None:
        return data_version(dataset, task, data)
    return sha256_json([record.revision, [[entry.path, entry.sha256] for entry in record.files]])


def _origin(dataset: Dataset, task: str) -> tuple[str, str | None, str]:
    """Repository, revision and licence of a task."""
    if dataset.source != "mteb":
        return _MMEB, None, "as the source of each task"
    metadata = mteb_task(task).metadata
    return str(metadata.dataset["path"]), str(metadata.dataset["revision"]), str(metadata.license)


def _folder(dataset: Dataset, task: str, data: Path) -> Path:
    if dataset.source == "disk":
        return data / task
    return data / _HOMES[dataset.source] if dataset.source in _HOMES else _home(_origin(dataset, task)[0], data)


def _home(repository: str, data: Path) -> Path:
    return data / _HOMES["mmeb"] if repository == _MMEB else local_copy(data, repository)


def _is_there(repository: Repository, data: Path) -> bool:
    """Whether the record says so, and the files have the sizes that they came with."""
    record = read_lock(data).get(repository.name)
    if record is None or not record.files:
        return False
    paths = [(_home(repository.name, data) / entry.path, entry) for entry in record.files]
    whole = all(path.is_file() and path.stat().st_size == entry.bytes for path, entry in paths)
    return whole and repository.revision in (None, record.revision)


def _fetch(repository: Repository, data: Path) -> Repository:
    from huggingface_hub import HfApi, snapshot_download

    folder = _home(repository.name, data)
    try:
        revision = repository.revision or HfApi().dataset_info(repository.name).sha
        snapshot_download(repository.name, repo_type="dataset", revision=revision, local_dir=folder)
    except HUB_ERRORS as error:
        if isinstance(error, OSError) and explain_os_error(error):
            raise
        raise FoundryError(
            f"{repository.name} can't be fetched at {repository.revision or 'its newest'}: {in_one_line(error)}",
            hint="Check the network and HF_HUB_OFFLINE, then run the same command again; what is there is kept.",
        ) from error
    record = FetchedRepository(str(revision), repository.licence, list_files(folder))
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
