"""Aggregates scores of tasks as the paper's table does: by dataset, by task type, and in a dataset-weighted total.

Knows numbers and the registry; not where a score comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gme_data.scores import TypeMean
from umrb.registry import Dataset, type_order


@dataclass(frozen=True, slots=True)
class SuiteSummary:
    """A row of the table: the scores of one model on a suite.

    Attributes:
        datasets: Scores by dataset id, of the datasets all of whose tasks are scored.
        types: Means by task type, in the order of the paper.
        total: Mean over the scored datasets, each counted once; None if there is none.
        expected: Number of datasets of the suite.
    """

    datasets: dict[str, float]
    types: dict[str, TypeMean]
    total: float | None
    expected: int

    @property
    def complete(self) -> bool:
        """Whether every dataset has a score; only then can the total be compared with a published one."""
        return len(self.datasets) == self.expected


def summarise(datasets: Sequence[Dataset], scores: Mapping[str, float]) -> SuiteSummary:
    """Aggregate the scores of tasks.

    Args:
        datasets: The datasets of a suite.
        scores: Headline values by the tasks' names at their source, in any unit. The score of a dataset is the mean of
            its tasks; if one of them is missing, the dataset has no score.
    """
    scored = {
        dataset.id: _mean([scores[task] for task in dataset.tasks])
        for dataset in datasets
        if all(task in scores for task in dataset.tasks)
    }
    # A mean over the datasets that have a score; the table says how many those are.
    types = {}
    for task_type in type_order(datasets):
        group = [dataset.id for dataset in datasets if dataset.task_type == task_type]
        values = [scored[id_] for id_ in group if id_ in scored]
        types[task_type] = TypeMean(mean=_mean(values) if values else None, scored=len(values), of=len(group))
    return SuiteSummary(scored, types, _mean(list(scored.values())) if scored else None, len(datasets))


def weighted_total(means: Mapping[str, float], datasets: Sequence[Dataset]) -> float:
    """Return the paper's average of type means, in which each type has the weight of its number of datasets.

    Raises:
        KeyError: A task type of the suite has no mean.
    """
    task_types = [dataset.task_type for dataset in datasets]
    return _mean([means[task_type] for task_type in task_types])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
