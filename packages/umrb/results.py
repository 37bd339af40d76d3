"""What a system scored: one record a task, means by task type, JSON on disk. Knows no model and no table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES
from gme_data.settings import Frozen
from gme_data.structured import StructureError, read_json

SCORES = "scores.json"
"""Name of the file in the folders of baselines, evaluation and report."""


class SubsetScore(Frozen):
    """The headline metric over the queries of one subset (a language, a field) of a task."""

    value: float
    """Mean over the subset's queries, 0..1."""
    queries: int
    """Number of queries."""


class TaskScore(Frozen):
    """The score of one system on one task. All values are in 0..1."""

    name: str
    """Name of the task."""
    task_type: str
    """One of the nine."""
    subset: str
    """``seen`` or ``unseen`` entities."""
    metric: str
    """The headline metric."""
    value: float
    """Mean of the headline metric over the queries."""
    interval: tuple[float, float]
    """95 % bootstrap interval of `value` over the queries."""
    scores: dict[str, float]
    """Mean of every reported metric."""
    queries: int
    """Number of queries."""
    pool: int
    """Number of documents searched."""
    subsets: dict[str, SubsetScore]
    """Breakdown by query subset."""


class SystemScores(Frozen):
    """The scores of one system."""

    system: str
    """Its name in tables."""
    tasks: tuple[TaskScore, ...]
    """In the order of the task types."""
    controls: tuple[TaskScore, ...] = ()
    """Tasks scored with the pictures of their queries exchanged between entities."""

    @property
    def by_name(self) -> dict[str, TaskScore]:
        """Scores by task name."""
        return {task.name: task for task in self.tasks}


class _WrittenSystem(SystemScores):
    """As a file has it: with means, which a reader recomputes and does not trust."""

    types: dict[str, float]
    overall: float


class _Written(Frozen):
    systems: tuple[_WrittenSystem, ...]


def by_task_type(tasks: Iterable[TaskScore]) -> dict[str, list[TaskScore]]:
    """Tasks of each task type that has any, in the order of the paper's table."""
    listed = list(tasks)
    groups = {kind: [task for task in listed if task.task_type == kind] for kind in TASK_TYPES}
    return {kind: group for kind, group in groups.items() if group}


def type_means(tasks: Iterable[TaskScore]) -> dict[str, float]:
    """Score of each task type: the mean of its tasks' headline values."""
    return {kind: _mean([task.value for task in group]) for kind, group in by_task_type(tasks).items()}


def overall(tasks: Iterable[TaskScore]) -> float:
    """Mean over all tasks of their headline values, each task counted once as in the paper's last column."""
    return _mean([task.value for task in tasks])


def write_scores(path: Path, systems: Iterable[SystemScores]) -> None:
    """Write systems with their type means and overall score, which a reader recomputes and does not trust."""
    payload = [_with_means(system) for system in systems]
    path.write_text(json.dumps({"systems": payload}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_scores(path: Path) -> list[SystemScores]:
    """Inverse of `write_scores`.

    Raises:
        FoundryError: The file is missing or has not the expected fields.
    """
    hint = "Run `gme evaluate` again."
    try:
        written = read_json(path, _Written, hint=hint)
    except (FileNotFoundError, StructureError) as error:
        raise FoundryError(f"No readable scores in {path}: {error}", hint=hint) from error
    fields = set(_WrittenSystem.model_fields) - set(SystemScores.model_fields)
    return [SystemScores.model_validate(system.model_dump(exclude=fields)) for system in written.systems]


def _with_means(system: SystemScores) -> Mapping[str, object]:
    return {**system.model_dump(mode="json"), "types": type_means(system.tasks), "overall": overall(system.tasks)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
