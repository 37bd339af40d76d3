"""Any task of a suite, ready to be scored, from whichever source it has. Knows sources by name; no model.

What reads benchmarks of mteb is imported when one is asked for: mteb takes seconds, and folders do without.
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
    """One task of a dataset, with what integrity found.

    Attributes:
        mteb: The task's own class in mteb; None for tasks that mteb does not have.
        revision: Of the data, as pinned; of what is not pinned a digest of its files.
        source: Where they were read.
        defects: What is wrong with them, a line each.
    """

    task: NumberedTask
    mteb: AbsTaskRetrieval | None
    revision: str
    source: str
    defects: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of what was read: ids, contents and judgements."""
        return content_digest(self.task)


def units(datasets: Sequence[Dataset]) -> Iterator[tuple[Dataset, str]]:
    """Every task of some datasets, by its name at the source."""
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
        name: One of its tasks.
        data: Folder that `fetch` filled.
        frames: Of a video.
        cache: Folder that keeps the digests of contents.
        read_pictures: Whether pictures of a folder of tasks are compared with their ids; see `check_task`.

    Raises:
        FoundryError: The data can't be had or read.
    """
    if dataset.source == "mteb":
        from umrb.data.mteb_data import expected_sizes, load_mteb, mteb_task

        known = mteb_task(name, data)
        task, qrels = load_mteb(known, dataset, frames=frames, cache=cache)
        where, revision = str(known.metadata.dataset["path"]), str(known.metadata.dataset["revision"])
        expected = expected_sizes(known, dataset, len(task.queries) + len(task.docs))
        return LoadedTask(task, known, revision, where, tuple(defects(task, qrels, expected)))
    if dataset.source == "disk" and data is not None:
        held = load_task(data / name)
        images = ImageStore(image_folders([data / name])) if held.card.images else None
        numbered, problems = check_task(held, images, read_pictures=read_pictures)
        return LoadedTask(numbered, None, files_digest(data / name), str(data / name), tuple(problems))
    if data is None:
        raise FoundryError(f"{dataset.id} is read from files.", hint="Give their folder with --data.")
    from umrb.data.importers import import_task

    task, qrels, revision = import_task(dataset, data)
    found = defects(task, qrels, (dataset.queries, dataset.candidates))
    return LoadedTask(task, None, revision, str(data), tuple(found))


def data_version(dataset: Dataset, name: str, data: Path | None) -> str | None:
    """Names the data of a task as they lie now, without reading pictures; None where there are none to look at.

    Two states of equal version are equal but for what a change of a file leaves of its size and time.
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
