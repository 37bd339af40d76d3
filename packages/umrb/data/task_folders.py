"""Folders of labelled tasks as datasets of a suite: reads their cards, and digests their files."""

from __future__ import annotations

from pathlib import Path

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.file_digests import file_digest
from gme_data.items import TASK_TYPES
from gme_data.task_tables import has_table
from gme_data.tasks import CARD, TABLES, TaskCard, is_beir, load_card
from gme_data.verified import VerifiedFolder
from umrb.registry import Dataset


def disk_datasets(folder: Path) -> tuple[Dataset, ...]:
    """Return the tasks below a folder, in Atlas's or BEIR's layout, as datasets of a suite.

    Tasks whose card can't be used are left out; see `unusable_tasks`.

    Raises:
        FoundryError: No card can be read, or the folder holds files that its manifest does not name.
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
    # In the order of the paper, as the tables of suites are.
    ordered = sorted(cards, key=lambda card: (TASK_TYPES.index(card.task_type), card.name))
    return tuple(map(_disk_dataset, ordered))


def unusable_tasks(folder: Path) -> dict[str, str]:
    """Return why the cards of tasks below a folder can't be used, by the names of their folders."""
    return _cards(folder)[1]


def _cards(folder: Path) -> tuple[list[TaskCard], dict[str, str]]:
    cards: list[TaskCard] = []
    unusable: dict[str, str] = {}
    VerifiedFolder.containing(folder)  # raises if the folder is part of an output that was changed
    for path in sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")):
        if not (path / CARD).is_file() and not is_beir(path):
            if any(has_table(path, stem) for stem in TABLES):
                missing = ", ".join(stem for stem in TABLES if not has_table(path, stem))
                unusable[path.name] = f"{path} has tables and no {CARD}; for BEIR's layout {missing} is missing"
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


def files_digest(folder: Path) -> str:
    """Return a digest of the names and bytes of all files below the folder of a task."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_json([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])
