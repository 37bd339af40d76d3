"""Scores of tasks to the numbers of the paper's table: datasets, means of task types, the dataset-weighted total.

Knows numbers and the registry; not where a score comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gme_data.scores import TypeMean
from umrb.registry import Dataset, type_order


@dataclass(frozen=True, slots=True)
class SuiteSummary:
    """A row of the table.

    Attributes:
        datasets: Score by dataset id, of those all of whose tasks are scored.
        types: By task type, in the order of the paper.
        total: Mean over the scored datasets, each counted once; None if there is none.
        expected: Datasets of the suite.
    """

    datasets: dict[str, float]
    types: dict[str, TypeMean]
    total: float | None
    expected: int

    @property
    def complete(self) -> bool:
        """Whether every dataset has a score: only then the total may stand beside a published one."""
        return len(self.datasets) == self.expected


def summarise(datasets: Sequence[Dataset], scores: Mapping[str, float]) -> SuiteSummary:
    """Aggregate.

    Args:
        datasets: A suite.
        scores: Headline value by the task's name at its source, in any unit. A dataset of several tasks is their mean;
            with one of them missing it has no score.
    """
    found = {
        dataset.id: _mean([scores[task] for task in dataset.tasks])
        for dataset in datasets
        if all(task in scores for task in dataset.tasks)
    }
    types = {}
    for kind in type_order(datasets):
        group = [dataset.id for dataset in datasets if dataset.task_type == kind]
        values = [found[id_] for id_ in group if id_ in found]
        types[kind] = TypeMean(mean=_mean(values) if values else None, scored=len(values), of=len(group))
    return SuiteSummary(found, types, _mean(list(found.values())) if found else None, len(datasets))


def weighted_total(means: Mapping[str, float], datasets: Sequence[Dataset]) -> float:
    """The paper's average from the means of the task types: each weighs as many datasets as it has.

    Raises:
        KeyError: A type of the suite has no mean.
    """
    kinds = [dataset.task_type for dataset in datasets]
    return _mean([means[kind] for kind in kinds])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
