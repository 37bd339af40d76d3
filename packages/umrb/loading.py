"""Any task of a suite, ready to be scored, from whichever source it has. Knows sources by name; no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mteb.abstasks.retrieval import AbsTaskRetrieval

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.file_digests import file_digest
from gme_data.images import ImageStore
from gme_data.items import TASK_TYPES
from gme_data.tasks import CARD, TABLES, TaskCard, image_folders, load_card, load_task
from gme_data.verified import VerifiedFolder
from umrb.importers import files_version, import_task
from umrb.mteb_data import expected_sizes, load_mteb, local_version, mteb_task
from umrb.registry import Dataset
from umrb.tasks import NumberedTask, check_task, content_digest, defects


@dataclass(frozen=True, slots=True)
class Loaded:
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


def disk_datasets(folder: Path) -> tuple[Dataset, ...]:
    """The tasks below a folder, in the shape of Atlas' tasks, as datasets of a suite. See `unusable_tasks` for others.

    Raises:
        FoundryError: There is none whose card can be read; something lies there that a manifest does not name.
    """
    cards, unusable = _cards(folder)
    if not cards:
        listed = "; ".join(unusable.values())
        raise FoundryError(
            f"No tasks in {folder}{f': {listed}' if listed else ''}.",
            hint=f"Give the folder above this one: it is a task itself, by its {CARD}."
            if (folder / CARD).is_file()
            else f"A task is a folder in it, with {CARD} and the tables {', '.join(TABLES)}; see docs/umrb.md.",
        )
    ordered = sorted(cards, key=lambda card: (TASK_TYPES.index(card.task_type), card.name))
    return tuple(map(_disk_dataset, ordered))


def unusable_tasks(folder: Path) -> dict[str, str]:
    """Why the card of a task below a folder can't be used, by the name of its folder."""
    return _cards(folder)[1]


def _cards(folder: Path) -> tuple[list[TaskCard], dict[str, str]]:
    cards: list[TaskCard] = []
    unusable: dict[str, str] = {}
    VerifiedFolder.containing(folder)
    for path in sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")):
        if not (path / CARD).is_file():
            if any(True for stem in TABLES for _ in path.glob(f"{stem}*")):
                unusable[path.name] = f"{path} has tables and no {CARD}"
            continue
        try:
            card = load_card(path)
        except FoundryError as error:
            unusable[path.name] = str(error)
            continue
        if card.name == path.name:
            cards.append(card)
        else:
            unusable[path.name] = f"{path / CARD}: name is '{card.name}'; expected '{path.name}', as its folder"
    return cards, unusable


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
        held = load_task(data / name)
        images = ImageStore(image_folders([data / name])) if held.card.images else None
        numbered, problems = check_task(held, images, read_pictures=True)
        return Loaded(numbered, None, _files_digest(data / name), str(data / name), tuple(problems))
    if data is None:
        raise FoundryError(f"{dataset.id} is read from files.", hint="Give their folder with --data.")
    task, qrels, revision = import_task(dataset, data)
    found = defects(task, qrels, (dataset.queries, dataset.candidates))
    return Loaded(task, None, revision, str(data), tuple(found))


def data_version(dataset: Dataset, name: str, data: Path | None) -> str | None:
    """Names the data of a task as they lie now, without reading pictures; None where there are none to look at.

    Two states of equal version are equal but for what a change of a file leaves of its size and time.
    """
    if dataset.source == "mteb":
        return local_version(mteb_task(name, data))
    if data is None:
        return None
    if dataset.source == "disk":
        return _files_digest(data / name) if (data / name).is_dir() else None
    return files_version(dataset, data)


def _files_digest(folder: Path) -> str:
    """Of names and bytes below the folder of a task; its pictures are named by their own digests."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_json([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])
