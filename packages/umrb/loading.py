"""Any task of a suite, ready to be scored, from whichever source it has. Knows sources by name; no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mteb.abstasks.retrieval import AbsTaskRetrieval

from gme_data.errors import FoundryError
from gme_data.manifest import content_digest, list_files
from gme_data.tasks import TaskCard, list_tasks, load_card
from umrb.importers import import_task
from umrb.mteb_data import expected_sizes, load_mteb, mteb_task
from umrb.registry import Dataset
from umrb.tasks import NumberedTask, defects, load_tasks


@dataclass(frozen=True, slots=True)
class Loaded:
    """One task of a dataset, with what integrity found.

    Attributes:
        mteb: The task's own class in mteb; None for tasks that mteb does not have.
        revision: Of the data.
        source: Where they were read.
    """

    task: NumberedTask
    mteb: AbsTaskRetrieval | None
    revision: str
    source: str
    defects: tuple[str, ...]


def units(datasets: Sequence[Dataset]) -> Iterator[tuple[Dataset, str]]:
    """Every task of some datasets, by its name at the source."""
    return ((dataset, task) for dataset in datasets for task in dataset.tasks)


def disk_datasets(folder: Path) -> tuple[Dataset, ...]:
    """The tasks below a folder, in the shape of Atlas' tasks, as datasets of a suite.

    Raises:
        FoundryError: There is none, or a card is missing or bad.
    """
    return tuple(_disk_dataset(load_card(path)) for path in list_tasks(folder))


def _disk_dataset(card: TaskCard) -> Dataset:
    return Dataset(
        id=card.name,
        task_type=card.task_type,
        name=card.name,
        source="disk",
        tasks=(card.name,),
        split=card.split,
        metric=card.metric,
        queries=card.queries,
        candidates=card.pool,
        pool="",
        partial=False,
        instruction=card.instruction,
        published={},
        note=card.description,
    )


def load_unit(dataset: Dataset, name: str, data: Path | None, *, frames: int = 1, cache: Path | None = None) -> Loaded:
    """Load and check one task.

    Args:
        dataset: Row of the registry.
        name: One of its tasks.
        data: Folder that `fetch` filled.
        frames: Of a video.
        cache: Folder that keeps the digests of contents.

    Raises:
        FoundryError: The data can't be had or read.
    """
    if dataset.source == "mteb":
        known = mteb_task(name, data)
        task, qrels = load_mteb(known, dataset, frames=frames, cache=cache)
        where, revision = str(known.metadata.dataset["path"]), str(known.metadata.dataset["revision"])
        expected = expected_sizes(known, dataset, len(task.queries) + len(task.docs))
        return Loaded(task, known, revision, where, tuple(defects(task, qrels, expected)))
    if dataset.source == "disk" and data is not None:
        (numbered,) = load_tasks(data, [name])
        return Loaded(numbered, None, content_digest(list_files(data / name)), str(data / name), ())
    if data is None:
        raise FoundryError(f"{dataset.id} is read from files.", hint="Give their folder with --data.")
    task, qrels, revision = import_task(dataset, data)
    found = defects(task, qrels, (dataset.queries, dataset.candidates))
    return Loaded(task, None, revision, str(data), tuple(found))
