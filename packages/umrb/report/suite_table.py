"""The table of a published suite: its datasets, the scores that exist, and the published scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gme_data.scores import DatasetScore, SuiteScores
from umrb.registry import Dataset, PublishedRow, published, type_order
from umrb.scoring.aggregate import SuiteSummary, summarise
from umrb.scoring.evaluator import slug
from umrb.scoring.result_files import TaskRecord


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One dataset of the suite.

    Attributes:
        value: Mean of its tasks, 0..1; None if one of them is not scored.
        interval: 95 % interval by queries; of several tasks that of the mean, as if tasks were independent.
    """

    dataset: Dataset
    value: float | None
    interval: tuple[float, float] | None
    queries: int
    pool: int
    defects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SuiteTable:
    """A suite as a page shows it.

    Attributes:
        rows: Datasets in the order of the suite.
        published: Rows of the paper's table; empty for suites of which the paper has none.
    """

    suite: str
    model: str
    rows: tuple[DatasetRow, ...]
    summary: SuiteSummary
    published: tuple[PublishedRow, ...]

    @property
    def anchor(self) -> str:
        """The name of the suite in files and links: lower case letters, digits and dashes."""
        return slug(self.suite)

    @property
    def task_types(self) -> list[str]:
        """The task types of the suite, in the order of the paper."""
        return type_order(row.dataset for row in self.rows)

    @property
    def published_models(self) -> list[str]:
        """Models whose scores of single datasets were published."""
        return sorted({model for row in self.rows for model in row.dataset.published})

    @property
    def scores(self) -> SuiteScores:
        """The table for programs: scores in 0..1, and published scores in fields of their own, in percent."""
        return SuiteScores(
            suite=self.suite,
            complete=self.summary.complete,
            total=self.summary.total,
            types=self.summary.types,
            datasets={
                row.dataset.id: DatasetScore(
                    task_type=row.dataset.task_type,
                    metric=row.dataset.metric,
                    value=row.value,
                    interval=row.interval,
                    queries=row.queries,
                    pool=row.pool,
                    defects=row.defects,
                    published=row.dataset.published,
                )
                for row in self.rows
            },
        )


def suite_table(suite: str, model: str, datasets: Sequence[Dataset], records: Mapping[str, TaskRecord]) -> SuiteTable:
    """Make the table of a suite from results by task name; results of other tasks are ignored."""
    scores = {name: record.score.value for name, record in records.items()}
    return SuiteTable(
        suite=suite,
        model=model,
        rows=tuple(_row(dataset, records) for dataset in datasets),
        summary=summarise(datasets, scores),
        # The paper has means of the whole suite only.
        published=published() if suite == "umrb" else (),
    )


def _row(dataset: Dataset, records: Mapping[str, TaskRecord]) -> DatasetRow:
    scores = [records[task].score for task in dataset.tasks if task in records]
    is_complete = len(scores) == len(dataset.tasks)
    value = sum(score.value for score in scores) / len(scores) if is_complete else None
    return DatasetRow(
        dataset=dataset,
        value=value,
        interval=_interval(value, [score.interval for score in scores]) if value is not None else None,
        queries=sum(score.queries for score in scores),
        pool=sum(score.pool for score in scores),
        defects=tuple(line for task in dataset.tasks if task in records for line in records[task].defects),
    )


def _interval(value: float, intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Interval of the mean `value` of tasks with `intervals`: variances of independent tasks add up."""
    if len(intervals) == 1:
        return intervals[0]
    half = sum(((high - low) / 2) ** 2 for low, high in intervals) ** 0.5 / len(intervals)
    return value - half, value + half
