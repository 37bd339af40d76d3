"""Scores, as evaluation, report, gate and releases exchange them: of a task, of a system, of a report.

There are two files: ``systems.json`` has an evaluation's scores of all systems, ``scores.json`` has a report's scores
of one model beside its baselines. Knows no model, and not how a metric is computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, StringConstraints

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES
from gme_data.journal import atomic_write
from gme_data.paths import FileName
from gme_data.settings import Frozen
from gme_data.structured import StructureError, read_json

SYSTEMS = "systems.json"
"""Name of the file in the folders of baselines and evaluation."""
SCORES = "scores.json"
"""Name of the file in the folder of a report."""
HELD_OUT = "held-out"
"""The suite of the tasks that are held out of a corpus."""

TaskScoreT = TypeVar("TaskScoreT", bound="TaskScore")
FileT = TypeVar("FileT", bound=BaseModel)


class SubsetScore(Frozen):
    """The headline metric over the queries of one subset (a language, a field) of a task."""

    value: float
    """Mean over the subset's queries, 0..1."""
    queries: int
    """Number of queries."""


class TaskScore(Frozen):
    """The score of one system on one task. All values are in 0..1."""

    name: Annotated[FileName, StringConstraints(max_length=200)]
    """Name of the task, which also names the files of its rankings and of its queries' values."""
    suite: str = HELD_OUT
    """The suite of the task."""
    dataset: str = ""
    """The row of the suite that it belongs to: tasks of one row count once. Empty: a row of its own."""
    task_type: str
    """One of `TASK_TYPES`."""
    subset: str = ""
    """``seen`` or ``unseen`` entities."""
    metric: str
    """The headline metric."""
    value: float
    """Mean of the headline metric over the queries."""
    interval: tuple[float, float]
    """95 % bootstrap interval of `value` over the queries."""
    scores: dict[str, float] = Field(default={})
    """Mean of every reported metric."""
    queries: int
    """Number of queries."""
    pool: int
    """Number of documents searched."""
    subsets: dict[str, SubsetScore] = Field(default={})
    """Breakdown by query subset."""


class SystemScores(Frozen):
    """The scores of one system."""

    system: str
    """Its name in tables."""
    tasks: tuple[TaskScore, ...]
    """Scores of its tasks, in the order of the task types."""
    controls: tuple[TaskScore, ...] = ()
    """Tasks scored with the pictures of their queries exchanged between entities."""

    @property
    def by_name(self) -> dict[str, TaskScore]:
        """Scores by task name."""
        return {task.name: task for task in self.tasks}


class ReportTask(TaskScore):
    """A task of a report: the model's score, and what it is compared with."""

    baselines: dict[str, float] = Field(default={})
    """Headline value of each baseline that applies to the task."""
    difference: tuple[float, float] | None = None
    """95 % interval of model minus best baseline, by paired queries."""


class Control(Frozen):
    """The scores of a task in which part of the input is removed, to measure what it contributes."""

    name: str
    """The task."""
    control: str
    """The part that is removed."""
    scores: dict[str, float]
    """Mean of every reported metric."""


class TypeMean(Frozen):
    """The mean of a task type in a table whose datasets need not all be scored."""

    mean: float | None
    """Mean over the datasets that have a score; null if none has."""
    scored: int
    """Number of datasets that have a score."""
    of: int
    """Number of datasets of the suite."""


class DatasetScore(Frozen):
    """One row of a suite, beside what was published of it."""

    task_type: str
    """The task type of the dataset."""
    metric: str
    """The headline metric."""
    value: float | None
    """Mean of its tasks; null if one of them is not scored."""
    interval: tuple[float, float] | None
    """95 %, by queries; of several tasks, of the mean of independent ones."""
    queries: int
    """Queries of its scored tasks."""
    pool: int
    """Documents of its scored tasks."""
    defects: tuple[str, ...]
    """What integrity found; a score in spite of defects does not compare."""
    published: dict[str, float]
    """Percent, by model."""


class SuiteScores(Frozen):
    """The table of one suite."""

    suite: str
    """Its name."""
    complete: bool
    """Whether every dataset has a score: only then the total may stand beside a published one."""
    total: float | None
    """Mean over the scored datasets, each counted once."""
    types: dict[str, TypeMean]
    """Means by task type, in the order of the paper."""
    datasets: dict[str, DatasetScore]
    """Scores by id of the dataset, in the order of the suite."""


class ReportScores(Frozen):
    """What a report says, for programs."""

    model: str = ""
    """Content digest of the model, or what it is called where it was not trained here."""
    revision: str = ""
    """Revision of a model that was not trained here; else empty."""
    split: str = "test"
    """The split of the tasks."""
    tasks: tuple[ReportTask, ...]
    """In the order of the task types."""
    types: dict[str, float]
    """Mean of each task type."""
    overall: float
    """Mean over all datasets."""
    controls: tuple[Control, ...] = ()
    """Scores of tasks in which part of the input is removed."""
    suites: tuple[SuiteScores, ...] = ()
    """Tables of published suites."""
    modality_gap: dict[str, float] = Field(default={})
    """Distance between the centres of two modalities, such as ``T-I``."""


class _Systems(Frozen):
    systems: tuple[SystemScores, ...]


def by_task_type(tasks: Iterable[TaskScoreT]) -> dict[str, list[TaskScoreT]]:
    """Returns the tasks of each task type that has any, in the order of the paper's table."""
    listed = list(tasks)
    groups = {kind: [task for task in listed if task.task_type == kind] for kind in TASK_TYPES}
    return {kind: group for kind, group in groups.items() if group}


def type_means(tasks: Iterable[TaskScore]) -> dict[str, float]:
    """Returns the score of each task type: the mean over its datasets."""
    return {kind: overall(group) for kind, group in by_task_type(tasks).items()}


def overall(tasks: Iterable[TaskScore]) -> float:
    """Returns the mean over all datasets of their headline values, each counted once as in the paper's last column.

    A dataset of several tasks, such as the twelve of CQADupStack, is their mean.
    """
    # A dataset may have one name in two suites.
    datasets: dict[tuple[str, str], list[float]] = {}
    for task in tasks:
        datasets.setdefault((task.suite, task.dataset or task.name), []).append(task.value)
    return _mean([_mean(values) for values in datasets.values()])


def write_systems(folder: Path, systems: Sequence[SystemScores]) -> None:
    """Writes `SYSTEMS`."""
    _write(folder / SYSTEMS, _Systems(systems=tuple(systems)))


def read_systems(folder: Path) -> tuple[SystemScores, ...]:
    """Inverse of `write_systems`.

    Raises:
        FoundryError: The file is missing or has not the expected fields.
    """
    return _read(folder / SYSTEMS, _Systems, "Run `gme evaluate` again.").systems


def write_report_scores(folder: Path, scores: ReportScores) -> None:
    """Writes `SCORES`."""
    _write(folder / SCORES, scores)


def read_report_scores(folder: Path) -> ReportScores:
    """Inverse of `write_report_scores`.

    Raises:
        FoundryError: The file is missing or has not the expected fields.
    """
    return _read(folder / SCORES, ReportScores, "Run `gme report` again.")


def _write(path: Path, scores: BaseModel) -> None:
    payload: Any = scores.model_dump(mode="json")
    atomic_write(path, (json.dumps(payload, indent=1, ensure_ascii=False) + "\n").encode())


def _read(path: Path, kind: type[FileT], hint: str) -> FileT:
    try:
        return read_json(path, kind, hint=hint)
    except FileNotFoundError as error:
        raise FoundryError(f"Scores can't be read: {path} is missing.", hint=hint) from error
    except StructureError as error:
        raise FoundryError(f"Scores can't be read: {error}", hint=hint) from error


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
