"""What the report of a suite is made of, read from the folder of one model's results. Needs no data and no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from umrb.aggregate import Summary, summarise
from umrb.cards import EXAMPLES, Example, Sample, read_examples, read_sample
from umrb.registry import Dataset, PublishedRow, published
from umrb.result_files import TaskRecord, read_results


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One dataset of the suite.

    Attributes:
        value: Mean of its tasks, 0..1; None if one is not scored.
        interval: 95 %, by queries; of several tasks, of the mean of independent ones.
        published: Percent, by model.
    """

    dataset: Dataset
    value: float | None
    interval: tuple[float, float] | None
    queries: int
    pool: int
    defects: tuple[str, ...]
    published: dict[str, float]


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """Everything that the page shows.

    Attributes:
        rows: In the order of the suite.
        published: Rows of the paper; empty for suites that it has no table of.
        examples: By task type.
        samples: Vectors of the tasks, as far as they were kept.
    """

    suite: str
    model: str
    revision: str
    records: tuple[TaskRecord, ...]
    rows: tuple[DatasetRow, ...]
    summary: Summary
    published: tuple[PublishedRow, ...]
    examples: dict[str, list[Example]]
    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> float:
        """Wall time of all tasks together."""
        return sum(record.seconds for record in self.records)

    @property
    def encoded(self) -> int:
        """Contents that were encoded."""
        return sum(record.encoded for record in self.records)

    @property
    def contents(self) -> int:
        """Contents that were asked for."""
        return sum(record.score.queries + record.score.pool for record in self.records)


def read_suite(suite: str, datasets: Sequence[Dataset], folder: Path) -> SuiteFacts:
    """Read the results in ``results/<model>/<revision>``.

    Raises:
        FoundryError: There is none of this suite.
    """
    records = {record.score.name: record for record in read_results(folder)}
    mine = {task: records[task] for dataset in datasets for task in dataset.tasks if task in records}
    if not mine:
        raise FoundryError(f"{folder} has no result of the suite {suite}.", hint=f"`gme umrb run --suite {suite}`")
    first = next(iter(mine.values()))
    examples: dict[str, list[Example]] = {}
    samples = []
    kinds = {task: dataset.task_type for dataset in datasets for task in dataset.tasks}
    for name, record in mine.items():
        examples.setdefault(kinds[name], []).extend(read_examples(folder / EXAMPLES / f"{name}.json"))
        sample = read_sample(folder / EXAMPLES, name, record.score.task_type)
        samples += [sample] if sample else []
    return SuiteFacts(
        suite=suite,
        model=first.model,
        revision=first.revision,
        records=tuple(mine.values()),
        rows=tuple(_row(dataset, mine) for dataset in datasets),
        summary=summarise(datasets, {name: record.score.value for name, record in mine.items()}),
        published=published() if suite == "umrb" else (),
        examples=examples,
        samples=tuple(samples),
    )


def _row(dataset: Dataset, records: dict[str, TaskRecord]) -> DatasetRow:
    found = [records[task].score for task in dataset.tasks if task in records]
    whole = len(found) == len(dataset.tasks)
    value = sum(score.value for score in found) / len(found) if whole else None
    return DatasetRow(
        dataset=dataset,
        value=value,
        interval=_interval(value, [score.interval for score in found]) if value is not None else None,
        queries=sum(score.queries for score in found),
        pool=sum(score.pool for score in found),
        defects=tuple(line for task in dataset.tasks if task in records for line in records[task].defects),
        published=dataset.published,
    )


def _interval(value: float, parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    if len(parts) == 1:
        return parts[0]
    half = sum(((high - low) / 2) ** 2 for low, high in parts) ** 0.5 / len(parts)
    return value - half, value + half
