"""The benchmarks as data: suites of datasets with type, metric, sizes, instruction and published scores.

The tables are the CSV files of ``suites/``. A dataset is scored as one or more tasks of a source; CQADupStack is the
mean of twelve and counts once. Knows no data, no model and no score that this package computes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gme_data.errors import FoundryError, did_you_mean
from gme_data.items import TASK_TYPES
from gme_data.settings import Frozen

_TABLES = Path(__file__).parent / "suites"
SUITES = ("umrb", "umrb-partial", "retrieval-page", "mmeb")
"""Names of the suites. ``umrb`` has the 47 datasets of the paper, ``umrb-partial`` a selection of 18 of them that was
made here, ``retrieval-page`` those of the other tables of the paper's page, and ``mmeb`` MMEB's 36 image tasks."""
MMEB_TYPES = ("classification", "vqa", "retrieval", "grounding")
_PUBLISHED = {"gme": "GME", "gme_2b": "GME-2B", "gme_7b": "GME-7B"}


class Dataset(Frozen):
    """One dataset of a suite: a row of its table, however many tasks it is scored on."""

    id: str
    """Id of the dataset, unique in its suite."""
    task_type: str
    """One of `TASK_TYPES`, or of MMEB's four."""
    name: str
    """Name as the paper prints it; the two directions of a dataset share one name."""
    source: Literal["mteb", "flickr30k-cn", "dci", "mmeb", "disk"]
    """Source of its tasks: mteb's own classes, one of `umrb.data.importers`, or a folder in the layout of
    Atlas's tasks."""
    tasks: tuple[str, ...]
    """Names of its tasks at the source; the dataset's score is their mean."""
    split: str
    """Split that the paper scores."""
    metric: str
    """``hit_rate_at_k`` (1 if any relevant document is in the first k) is what the paper calls Recall@k."""
    queries: int | None
    """Expected number of queries over all tasks; None where it is not published."""
    candidates: int | None
    """Expected number of documents over all tasks."""
    pool: str
    """Name of the pool: datasets with the same name search nearly the same documents; empty if nothing is known."""
    partial: bool
    """Whether it is in ``umrb-partial``."""
    instruction: str | None
    """Instruction of the queries in the authors' own evaluation of GME."""
    published: dict[str, float]
    """Scores in percent, by model."""
    note: str
    """A remark for readers of the table."""


class PublishedRow(Frozen):
    """A published row of UMRB's table. It is kept apart from scores that this package computes."""

    model: str
    """Name of the model as printed."""
    size: str
    """Number of parameters as printed."""
    types: dict[str, float]
    """Mean of each task type in percent."""
    average: float
    """The average as printed, in percent."""


@cache
def load_suite(name: str) -> tuple[Dataset, ...]:
    """Return the datasets of a suite, in the order of the paper.

    Raises:
        FoundryError: There is no such suite; the message suggests one.
    """
    if name not in SUITES:
        raise FoundryError(f"Unknown suite '{name}'.{did_you_mean(name, SUITES)}", hint=f"Use {', '.join(SUITES)}.")
    if name == "umrb-partial":
        return tuple(dataset for dataset in load_suite("umrb") if dataset.partial)
    return tuple(_dataset(row) for row in _rows(name))


def choose(suite: str, names: Sequence[str] = ()) -> tuple[Dataset, ...]:
    """Return the datasets of a suite by id, task or printed name in any case; all of them for no `names`.

    Raises:
        FoundryError: The suite has no dataset of a name; the message suggests one.
    """
    return select(suite, load_suite(suite), names)


def select(suite: str, datasets: Sequence[Dataset], names: Sequence[str]) -> tuple[Dataset, ...]:
    """Return those of `datasets` that `names` name; see `choose`. Errors call the datasets `suite`."""
    ids = {id_ for name in names for id_ in _ids_of(suite, datasets, name)}
    return tuple(dataset for dataset in datasets if not names or dataset.id in ids)


@cache
def published() -> tuple[PublishedRow, ...]:
    """Return the rows of UMRB's table as printed, in its order."""
    return tuple(
        PublishedRow(
            model=row["model"],
            size=row["size"],
            types={task_type: float(row[task_type]) for task_type in TASK_TYPES if task_type in row},
            average=float(row["average"]),
        )
        for row in _rows("published")
    )


def type_order(datasets: Iterable[Dataset]) -> list[str]:
    """Return the task types of some datasets, in the order of the paper."""
    present = {dataset.task_type for dataset in datasets}
    return [task_type for task_type in (*TASK_TYPES, *MMEB_TYPES) if task_type in present]


def _ids_of(suite: str, datasets: Sequence[Dataset], name: str) -> list[str]:
    ids = [
        dataset.id
        for dataset in datasets
        if name.lower() in {dataset.id.lower(), dataset.name.lower(), *map(str.lower, dataset.tasks)}
    ]
    if not ids:
        known_names = [label for dataset in datasets for label in (dataset.id, dataset.name)]
        raise FoundryError(
            f"No dataset '{name}' in the suite {suite}.{did_you_mean(name, known_names)}",
            hint=f"`gme umrb list --suite {suite}` shows all {len(datasets)}.",
        )
    return ids


def _rows(table: str) -> list[dict[str, str]]:
    with (_TABLES / f"{table}.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _dataset(row: dict[str, str]) -> Dataset:
    texts: dict[str, Any] = {name: row[name] for name in ("id", "task_type", "name", "source", "split", "metric")}
    return Dataset(
        **texts,
        tasks=tuple(row["tasks"].split()),
        # An empty cell means that the paper does not say.
        queries=int(row["queries"]) if row["queries"] else None,
        candidates=int(row["candidates"]) if row["candidates"] else None,
        pool=row["pool"],
        partial=row["partial"] == "yes",
        instruction=row["instruction"] or None,
        published={label: float(row[column]) for column, label in _PUBLISHED.items() if row[column]},
        note=row["note"],
    )
