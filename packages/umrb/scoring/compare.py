"""Compares two models on the same queries: differences, their intervals, and whether they exceed sampling noise.

Knows per-query values on disk; not what the models are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.parquet import read_table
from umrb.intervals import bootstrap_interval
from umrb.metrics import Floats
from umrb.registry import Dataset
from umrb.scoring.aggregate import SuiteSummary, summarise
from umrb.scoring.result_files import TaskRecord, read_results
from umrb.scoring.run_files import QUERIES, QUERY_SCHEMA

LEVEL = 0.05
"""Significance level of a comparison."""
_FLIPS = 10_000
_FLIPS_PER_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two models on one task.

    Attributes:
        first: Score of the first model.
        second: Score of the second model.
        interval: 95 % interval of second minus first, by a paired bootstrap over queries.
        p: Two-sided p of a paired randomisation test.
        significant: Whether the difference is significant at 5 % among all tests of the comparison (Holm 1979).
    """

    dataset: str
    task: str
    task_type: str
    metric: str
    queries: int
    first: float
    second: float
    interval: tuple[float, float]
    p: float
    significant: bool

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the tasks that both have."""

    models: tuple[str, str]
    tasks: tuple[Difference, ...]
    summaries: tuple[SuiteSummary, SuiteSummary]

    @property
    def wins(self) -> tuple[int, int]:
        """Tasks on which the first, and the second, is significantly better."""
        better = [task.difference for task in self.tasks if task.significant]
        return sum(difference < 0 for difference in better), sum(difference > 0 for difference in better)


def compare(
    first: Path, second: Path, datasets: Sequence[Dataset], *, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Compare the results of two systems on one suite, from the folders that `umrb.scoring.runner` wrote.

    Raises:
        FoundryError: A folder has no results, the two have no task in common, or a task was not scored on the same
            queries, pool, metric or revision of the data.
    """
    records = [{record.score.name: record for record in read_results(folder)} for folder in (first, second)]
    names = [task for dataset in datasets for task in dataset.tasks if all(task in by_task for by_task in records)]
    if not names:
        raise FoundryError(f"{first} and {second} have no task in common.", hint="Score both on the same datasets.")
    differences = []
    for name in names:
        first_record, second_record = (by_task[name] for by_task in records)
        _require_comparable(first_record, second_record)
        first_queries, first_values = _read_values(first, name, first_record)
        second_queries, second_values = _read_values(second, name, second_record)
        # Equal numbers of queries don't make a pair: values are compared row by row.
        if not first_queries.equals(second_queries):
            raise FoundryError(f"{name} does not compare: the ids of its queries differ.", hint="Score it again.")
        values = second_values - first_values
        differences.append(
            Difference(
                dataset=first_record.score.dataset,
                task=name,
                task_type=first_record.score.task_type,
                metric=first_record.score.metric,
                queries=first_record.score.queries,
                first=first_record.score.value,
                second=second_record.score.value,
                interval=bootstrap_interval(values, resamples=resamples, seed=seed),
                p=sign_flip_p(values, seed=seed),
                significant=False,
            )
        )
    summaries = [summarise(datasets, {name: by_task[name].score.value for name in names}) for by_task in records]
    models = (_label(records[0][names[0]]), _label(records[1][names[0]]))
    return Comparison(models, tuple(_mark_significant(differences)), (summaries[0], summaries[1]))


def sign_flip_p(differences: Floats, *, seed: int, flips: int = _FLIPS) -> float:
    """Return the two-sided p of a paired randomisation test on differences [q] (Fisher 1935).

    Under the null hypothesis the sign of each difference is arbitrary. Smucker et al. (2007), "A comparison of
    statistical significance tests for information retrieval evaluation", recommend the test.
    """
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0
    # The sums of sign flips that equal the observed one must not fall below it by rounding.
    observed = abs(nonzero.sum()) * (1 - 1e-12)
    rng, extreme = np.random.default_rng(seed), 0
    for start in range(0, flips, _FLIPS_PER_BLOCK):
        count = min(_FLIPS_PER_BLOCK, flips - start)
        # One random bit for each sign; bytes are drawn whole, and their surplus bits are cut off.
        bits = np.unpackbits(np.frombuffer(rng.bytes(count * (len(nonzero) // 8 + 1)), np.uint8))
        signs = bits.reshape(count, -1)[:, : len(nonzero)] * 2.0 - 1.0
        extreme += int((np.abs(signs @ nonzero) >= observed).sum())
    # The observed signs count as one of the flips, so that p is never 0.
    return (extreme + 1) / (flips + 1)


def _mark_significant(differences: Sequence[Difference]) -> list[Difference]:
    """Mark what is significant by Holm's step-down: the i-th smallest p, from 0, may be 5 % / (tests - i) at most."""
    significant: dict[str, bool] = {}
    passing = True
    for number, difference in enumerate(sorted(differences, key=lambda difference: difference.p)):
        passing = passing and difference.p <= LEVEL / (len(differences) - number)
        significant[difference.task] = passing
    return [replace(difference, significant=significant[difference.task]) for difference in differences]


def _require_comparable(first: TaskRecord, second: TaskRecord) -> None:
    def conditions(record: TaskRecord) -> dict[str, object]:
        score = record.score
        of_score = {"queries": score.queries, "documents": score.pool, "metric": score.metric}
        return {**of_score, "revision of the data": record.data_revision, "digest of the data": record.data_digest}

    for what, value in conditions(first).items():
        if conditions(second)[what] != value:
            raise FoundryError(
                f"{first.score.name} does not compare: {what} is {value} for {_label(first)} and "
                f"{conditions(second)[what]} for {_label(second)}.",
                hint="Score both models on the same data: `gme umrb run --overwrite always`.",
            )


def _read_values(folder: Path, task: str, record: TaskRecord) -> tuple[pa.Array, NDArray[np.float64]]:
    """Ids of the queries of a task and their headline values, [q] each."""
    path = folder / QUERIES / f"{task}.parquet"
    table = read_table(path, QUERY_SCHEMA)
    if len(table) != record.score.queries:
        raise FoundryError(f"{path} does not belong to the result beside it.", hint="Score the task again.")
    return table.column("query_id").combine_chunks(), table.column("value").to_numpy()


def _label(record: TaskRecord) -> str:
    return f"{record.model}@{record.revision[:8]}"
