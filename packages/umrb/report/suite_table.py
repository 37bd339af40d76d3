"""The table of a published suite: its datasets, their scores as far as there are any, and what was published."""

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
        value: Mean of its tasks, 0..1; None if one is not scored.
        interval: 95 %, by queries; of several tasks, of the mean of independent ones.
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
        rows: In the order of the suite.
        published: Rows of the paper; empty for suites that it has no table of.
    """

    suite: str
    model: str
    rows: tuple[DatasetRow, ...]
    summary: SuiteSummary
    published: tuple[PublishedRow, ...]

    @property
    def anchor(self) -> str:
        """Its name as files and links have it: lower case letters, digits and dashes."""
        return slug(self.suite)

    @property
    def kinds(self) -> list[str]:
        """Its task types, in the order of the paper."""
        return type_order(row.dataset for row in self.rows)

    @property
    def published_models(self) -> list[str]:
        """Models of which scores of single datasets were published."""
        return sorted({model for row in self.rows for model in row.dataset.published})

    @property
    def scores(self) -> SuiteScores:
        """For programs; scores in 0..1, published ones apart and in percent."""
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
    """The table of a suite from results by the name of the task; other tasks may be among them."""
    scores = {name: record.score.value for name, record in records.items()}
    return SuiteTable(
        suite=suite,
        model=model,
        rows=tuple(_row(dataset, records) for dataset in datasets),
        summary=summarise(datasets, scores),
        published=published() if suite == "umrb" else (),
    )


def _row(dataset: Dataset, records: Mapping[str, TaskRecord]) -> DatasetRow:
    scores = [records[task].score for task in dataset.tasks if task in records]
    whole = len(scores) == len(dataset.tasks)
    value = sum(score.value for score in scores) / len(scores) if whole else None
    return DatasetRow(
        dataset=dataset,
        value=value,
        interval=_interval(value, [score.interval for score in scores]) if value is not None else None,
        queries=sum(score.queries for score in scores),
        pool=sum(score.pool for score in scores),
        defects=tuple(line for task in dataset.tasks if task in records for line in records[task].defects),
    )


def _interval(value: float, parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    if len(parts) == 1:
        return parts[0]
    half = sum(((high - low) / 2) ** 2 for low, high in parts) ** 0.5 / len(parts)
    return value - half, value + half
