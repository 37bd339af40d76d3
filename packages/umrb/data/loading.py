"""Loads any task of a suite from its source and checks it. Knows sources by name; no model.

The readers of mteb's benchmarks are imported where they are used: mteb takes seconds, and folders of tasks need none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.tasks import image_folders, load_task
from umrb.data.task_folders import files_digest
from umrb.registry import Dataset
from umrb.data.tasks import NumberedTask, check_task, content_digest, defects

if TYPE_CHECKING:
    from mteb.abstasks.retrieval import AbsTaskRetrieval


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """One task of a dataset, with the defects of its data.

    Attributes:
        mteb: The task's class in mteb; None for tasks that mteb does not have.
        revision: The pinned revision of the data, or a digest of their files where none is pinned.
        source: Where the data were read: a repository or a folder.
        defects: What is wrong with the data, a line each; see `umrb.data.tasks.defects`.
    """

    task: NumberedTask
    mteb: AbsTaskRetrieval | None
    revision: str
    source: str
    defects: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of what was read: ids, contents and judgements."""
        return content_digest(self.task)


def tasks_of(datasets: Sequence[Dataset]) -> Iterator[tuple[Dataset, str]]:
    """Iterate over every task of some datasets, by its name at the source."""
    return ((dataset, task) for dataset in datasets for task in dataset.tasks)


def load_suite_task(
    dataset: Dataset,
    name: str,
    data: Path | None,
    *,
    frames: int = 1,
    cache: Path | None = None,
    read_pictures: bool = True,
) -> LoadedTask:
    """Load and check one task.

    Args:
        dataset: Row of the registry.
        name: Name of one of its tasks.
        data: Folder that `fetch` filled.
        frames: Frames of a video that make up its item.
        cache: Folder in which digests of contents are cached.
        read_pictures: Whether pictures of a folder of tasks are compared with their ids; see `check_task`.

    Raises:
        FoundryError: The data are missing or can't be read.
    """
    if dataset.source == "mteb":
        # mteb takes seconds to import, which tasks from a folder do not need.
        from umrb.data.mteb_data import expected_sizes, load_mteb, mteb_task

        source = mteb_task(name, data)
        task, qrels = load_mteb(source, dataset, frames=frames, cache=cache)
        repository, revision = str(source.metadata.dataset["path"]), str(source.metadata.dataset["revision"])
        expected = expected_sizes(source, dataset, len(task.queries) + len(task.docs))
        return LoadedTask(task, source, revision, repository, tuple(defects(task, qrels, expected)))
    if dataset.source == "disk" and data is not None:
        unnumbered = load_task(data / name)
        # A task of texts alone names no folder of pictures.
        images = ImageStore(image_folders([data / name])) if unnumbered.card.images else None
        numbered, problems = check_task(unnumbered, images, read_pictures=read_pictures)
        return LoadedTask(numbered, None, files_digest(data / name), str(data / name), tuple(problems))
    if data is None:
        raise FoundryError(f"{dataset.id} is read from files.", hint="Give their folder with --data.")
    from umrb.data.importers import import_task

    task, qrels, revision = import_task(dataset, data)
    problems = defects(task, qrels, (dataset.queries, dataset.candidates))
    return LoadedTask(task, None, revision, str(data), tuple(problems))


def data_version(dataset: Dataset, name: str, data: Path | None) -> str | None:
    """Name the present state of a task's data without reading its pictures; None where there are none.

    Files of mteb and of importers are named by sizes and modification times, so a change that leaves both as they were
    is not seen.
    """
    if dataset.source == "mteb":
        from umrb.data.mteb_data import local_version, mteb_task

        return local_version(mteb_task(name, data))
    if data is None:
        return None
    if dataset.source == "disk":
        return files_digest(data / name) if (data / name).is_dir() else None
    from umrb.data.importers import files_version

    return files_version(dataset, data)
