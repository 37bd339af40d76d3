"""Two models on the same queries: differences, their intervals, and whether they are more than the luck of the draw.

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
_FLIPS = 10_000
_FLIPS_PER_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Difference:
    """One task.

    Attributes:
        first: Score of the first model.
        second: Of the second.
        interval: 95 % interval of second minus first, by queries drawn in pairs.
        p: Of a paired randomisation test, two-sided.
        significant: Whether it stands at 5 % among all of the comparison's tests (Holm 1979).
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
        return sum(one < 0 for one in better), sum(one > 0 for one in better)


def compare(
    first: Path, second: Path, datasets: Sequence[Dataset], *, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Compare the results of two systems on one suite, as `umrb.scoring.runner` leaves them in a folder each.

    Raises:
        FoundryError: A folder without results, no task in common, or a task that was not scored on the same queries,
            pool, metric or revision of the data.
    """
    records = [{record.score.name: record for record in read_results(folder)} for folder in (first, second)]
    names = [task for dataset in datasets for task in dataset.tasks if all(task in found for found in records)]
    if not names:
        raise FoundryError(f"{first} and {second} have no task in common.", hint="Score both on the same datasets.")
    differences = []
    for name in names:
        one, other = (found[name] for found in records)
        _require_comparable(one, other)
        (queries, before), (same, after) = _values(first, name, one), _values(second, name, other)
        if not queries.equals(same):
            raise FoundryError(f"{name} does not compare: the ids of its queries differ.", hint="Score it again.")
        differences.append(_difference(one, other, after - before, resamples, seed))
    both = [summarise(datasets, {name: found[name].score.value for name in names}) for found in records]
    models = (_label(records[0][names[0]]), _label(records[1][names[0]]))
    return Comparison(models, tuple(_holm(differences)), (both[0], both[1]))


def sign_flip_p(differences: Floats, *, seed: int, flips: int = _FLIPS) -> float:
    """Two-sided p of a paired randomisation test: signs of the differences [q] are as good as coins (Fisher 1935).

    Smucker et al. (2007), "A comparison of statistical significance tests for information retrieval evaluation".
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    observed = abs(moved.sum()) * (1 - 1e-12)  # equal sums must not differ by rounding
    rng, extreme = np.random.default_rng(seed), 0
    for start in range(0, flips, _FLIPS_PER_BLOCK):
        count = min(_FLIPS_PER_BLOCK, flips - start)
        bits = np.unpackbits(np.frombuffer(rng.bytes(count * (len(moved) // 8 + 1)), np.uint8))
        signs = bits.reshape(count, -1)[:, : len(moved)] * 2.0 - 1.0
        extreme += int((np.abs(signs @ moved) >= observed).sum())
    return (extreme + 1) / (flips + 1)


def _difference(one: TaskRecord, other: TaskRecord, values: Floats, resamples: int, seed: int) -> Difference:
    return Difference(
        dataset=one.score.dataset,
        task=one.score.name,
        task_type=one.score.task_type,
        metric=one.score.metric,
        queries=one.score.queries,
        first=one.score.value,
        second=other.score.value,
        interval=bootstrap_interval(values, resamples=resamples, seed=seed),
        p=sign_flip_p(values, seed=seed),
        significant=False,
    )


def _holm(found: Sequence[Difference]) -> list[Difference]:
    """Mark what is significant: the i-th smallest p must stay below 5 % / (tests left)."""
    marked: dict[str, bool] = {}
    standing = True
    for number, one in enumerate(sorted(found, key=lambda one: one.p)):
        standing = standing and one.p <= LEVEL / (len(found) - number)
        marked[one.task] = standing
    return [replace(one, significant=marked[one.task]) for one in found]


def _require_comparable(one: TaskRecord, other: TaskRecord) -> None:
    def facts(record: TaskRecord) -> dict[str, object]:
        score = record.score
        named = {"queries": score.queries, "documents": score.pool, "metric": score.metric}
        return {**named, "revision of the data": record.data_revision, "digest of the data": record.data_digest}

    for what, value in facts(one).items():
        if facts(other)[what] != value:
            raise FoundryError(
                f"{one.score.name} does not compare: {what} is {value} for {_label(one)} and {facts(other)[what]} for "
                f"{_label(other)}.",
                hint="Score both models on the same data: `gme umrb run --overwrite always`.",
            )


def _values(folder: Path, task: str, record: TaskRecord) -> tuple[pa.Array, NDArray[np.float64]]:
    """[q] ids of the queries, and their headline values."""
    path = folder / QUERIES / f"{task}.parquet"
    table = read_table(path, QUERY_SCHEMA)
    if len(table) != record.score.queries:
        raise FoundryError(f"{path} does not belong to the result beside it.", hint="Score the task again.")
    return table.column("query_id").combine_chunks(), table.column("value").to_numpy()


def _label(record: TaskRecord) -> str:
    return f"{record.model}@{record.revision[:8]}"
