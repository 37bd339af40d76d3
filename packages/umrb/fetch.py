"""Data of a suite on disk: fetched at pinned revisions, recorded, and verified.

Each dataset repository has a folder of its own, and ``umrb.lock.json`` beside them says of every file what it was when
it came: revision, bytes, sha256. The whole folder may be versioned by DVC. Knows repositories; no model, no metric.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.manifest import FileEntry, list_files
from gme_data.progress import Progress
from umrb.loading import load_unit, units
from umrb.mteb_data import local_copy, mteb_task
from umrb.registry import Dataset

LOCK = "umrb.lock.json"
_BY_HAND = {
    "dci": "Its photos are part of SA-1B, whose terms each user accepts: see the DCI repository, then docs/umrb.md.",
    "flickr30k-cn": "Its authors hand it out on request: see Chinese-CLIP, then docs/umrb.md for the layout.",
}
_MMEB = "TIGER-Lab/MMEB-eval"


@dataclass(frozen=True, slots=True)
class Repository:
    """A dataset repository on the hub.

    Attributes:
        name: ``owner/name``.
        revision: The commit that is fetched; None for whatever is newest, which is recorded.
        licence: As mteb states it.
        tasks: What reads it.
    """

    name: str
    revision: str | None
    licence: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a task's data; nothing, if `problems` is empty.

    Attributes:
        checked: Whether the data were there to be checked.
    """

    task: str
    checked: bool
    problems: tuple[str, ...]


def repositories(datasets: Sequence[Dataset]) -> list[Repository]:
    """What some datasets are read from, each once, in their order.

    Raises:
        FoundryError: One can't be had from the hub; says where.
    """
    found: dict[str, Repository] = {}
    for dataset, task in units(datasets):
        if dataset.source in _BY_HAND:
            raise FoundryError(f"{dataset.id} can't be fetched.", hint=_BY_HAND[dataset.source])
        name, revision, licence = _origin(dataset, task)
        before = found[name].tasks if name in found else ()
        found[name] = Repository(name, revision, licence, (*before, task))
    return list(found.values())


def fetch(datasets: Sequence[Dataset], data: Path) -> list[Repository]:
    """Bring the repositories of some datasets to `data`; what is there at the right revision is left alone.

    Returns:
        Those that were fetched.

    Raises:
        FoundryError: The hub can't be reached, or a repository or revision is not there.
    """
    wanted = repositories(datasets)
    fetched = []
    with Progress("fetch", len(wanted), "repositories") as progress:
        for repository in wanted:
            if _locked(data).get(repository.name, {}).get("revision") not in (repository.revision or "?",):
                fetched.append(_fetch(repository, data))
            progress.advance(note=repository.name)
    return fetched


def verify(datasets: Sequence[Dataset], data: Path) -> Iterator[Finding]:
    """Check files against the record of their coming, and tasks for integrity and expected sizes."""
    locked = _locked(data)
    for dataset, task in units(datasets):
        folder = _folder(dataset, task, data)
        if not folder.exists():
            yield Finding(task, checked=False, problems=(f"{folder} is not there",))
            continue
        problems = list(_file_problems(folder, locked.get(_origin(dataset, task)[0], {})))
        try:
            problems += load_unit(dataset, task, data).defects
        except FoundryError as error:
            problems.append(str(error))
        yield Finding(task, checked=True, problems=tuple(problems))


def _origin(dataset: Dataset, task: str) -> tuple[str, str | None, str]:
    """Repository, revision and licence of a task."""
    if dataset.source != "mteb":
        return _MMEB, None, "as the source of each task"
    metadata = mteb_task(task).metadata
    return str(metadata.dataset["path"]), str(metadata.dataset["revision"]), str(metadata.license)


def _folder(dataset: Dataset, task: str, data: Path) -> Path:
    homes = {"dci": "densely_captioned_images", "flickr30k-cn": "Flickr30k-CN", "mmeb": "MMEB-eval"}
    return data / homes[dataset.source] if dataset.source in homes else local_copy(data, _origin(dataset, task)[0])


def _fetch(repository: Repository, data: Path) -> Repository:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    folder = data / "MMEB-eval" if repository.name == _MMEB else local_copy(data, repository.name)
    try:
        revision = repository.revision or HfApi().dataset_info(repository.name).sha
        snapshot_download(repository.name, repo_type="dataset", revision=revision, local_dir=folder)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) as error:
        raise FoundryError(
            f"{repository.name} can't be fetched at {repository.revision}: {str(error).splitlines()[0]}",
            hint="Check the network and HF_HUB_OFFLINE, then run the same command again; what is there is kept.",
        ) from error
    files = [entry for entry in list_files(folder) if not entry.path.startswith(".")]
    record = {"revision": revision, "licence": repository.licence, "files": [asdict(entry) for entry in files]}
    _write_lock(data, {**_locked(data), repository.name: record})
    return Repository(repository.name, revision, repository.licence, repository.tasks)


def _file_problems(folder: Path, record: dict[str, Any]) -> Iterator[str]:
    if not record:
        yield f"{folder} was not fetched by `gme umrb fetch`: its revision is not known"
    for raw in record.get("files", ()):
        entry = FileEntry(**raw)
        path = folder / entry.path
        if not path.is_file():
            yield f"{path} is missing"
        elif path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            yield f"{path} has changed since it was fetched"


def _locked(data: Path) -> dict[str, dict[str, Any]]:
    path = data / LOCK
    if not path.exists():
        return {}
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except ValueError as error:
        raise FoundryError(f"{path} is no JSON: {error}", hint="Delete it and run `gme umrb fetch` again.") from error


def _write_lock(data: Path, record: dict[str, Any]) -> None:
    atomic_write(data / LOCK, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
