"""Scores systems on tasks, one task at a time, each written down as it is done.

A killed run goes on with the task it was at. Knows neither what a system is made of nor what a table looks like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.journal import Journal, atomic_write
from gme_data.parquet import ROW_GROUP_ROWS
from gme_data.progress import Progress
from umrb.config import REPORTED, ScoringConfig
from umrb.intervals import bootstrap_interval
from umrb.metrics import NOT_FOUND, Floats, find
from umrb.results import SubsetScore, SystemScores, TaskScore
from umrb.systems import Outcome, Ranking, System
from umrb.tasks import NumberedTask

VECTORS = ".vectors"
"""Folder of the vectors within a staging folder. Hidden: it goes when the step is published."""

RUN_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
QUERY_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("first_relevant", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Runner:
    """Where scores go and how they are made.

    Attributes:
        folder: Gets ``runs/<system>/<task>.parquet`` (rank from 1) and ``queries/<system>/<task>.parquet``.
        journal: Finished (system, task) pairs.
    """

    folder: Path
    journal: Journal
    config: ScoringConfig

    def score(self, system: System, tasks: Sequence[NumberedTask]) -> SystemScores:
        """Score a system on every task that it applies to."""
        applicable = [task for task in tasks if system.applies_to(task.card)]
        system.prepare(applicable)
        scores = []
        with Progress(f"score {system.name}", len(applicable), "tasks") as progress:
            for task in applicable:
                scores.append(self.score_task(system, task))
                progress.advance(note=f"{task.card.name} {scores[-1].value:.3f}")
        return SystemScores(system=system.name, tasks=tuple(scores))

    def score_task(self, system: System, task: NumberedTask, variant: str = "") -> TaskScore:
        """Score a system on one task. A `variant` (of a control) is scored only, and writes no files."""
        unit = slug(f"{system.name}-{task.card.name}-{variant}")
        return TaskScore.model_validate(
            self.journal.get_or_run(unit, lambda: self._run(system, task, write=not variant).model_dump(mode="json"))
        )

    def _run(self, system: System, task: NumberedTask, *, write: bool) -> TaskScore:
        metrics = list(dict.fromkeys([task.card.metric, *REPORTED, f"map_at_{self.config.depth}"]))
        outcome = system.outcome(task, metrics, self.config.depth)
        if write:
            write_outcome(self.folder, system.name, task, outcome, self.config.kept)
        return summarise(task, outcome.metrics, self.config)


def summarise(task: NumberedTask, metrics: dict[str, Floats], config: ScoringConfig) -> TaskScore:
    """Means, interval and breakdown of per-query values."""
    headline = metrics[task.card.metric]
    subsets = np.array(task.queries.subsets)
    return TaskScore(
        name=task.card.name,
        task_type=task.card.task_type,
        subset=task.card.subset,
        metric=task.card.metric,
        value=float(headline.mean()),
        interval=bootstrap_interval(headline, resamples=config.resamples, seed=config.seed),
        scores={name: float(values.mean()) for name, values in metrics.items()},
        queries=len(task.queries),
        pool=len(task.docs),
        subsets={
            str(name): SubsetScore(value=float(headline[subsets == name].mean()), queries=int((subsets == name).sum()))
            for name in np.unique(subsets)
        },
    )


def slug(name: str) -> str:
    """`name` as a file name: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write_outcome(folder: Path, system: str, task: NumberedTask, outcome: Outcome, kept: int) -> None:
    """Write the first `kept` documents of each query, if there is a ranking, and the per-query values."""
    if outcome.ranking is not None:
        _write(folder / "runs" / slug(system), task, _run_table(task, outcome.ranking, kept))
    _write(folder / "queries" / slug(system), task, _query_table(task, outcome))


def _write(folder: Path, task: NumberedTask, table: pa.Table) -> None:
    """The same bytes for the same rows; the file is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS)
    atomic_write(folder / f"{task.card.name}.parquet", buffer.getvalue().to_pybytes())


def _run_table(task: NumberedTask, ranking: Ranking, kept: int) -> pa.Table:
    rows, scores = ranking.rows[:, :kept], ranking.scores[:, :kept]
    query, place = np.nonzero(rows >= 0)
    columns = [
        task.queries.ids.take(pa.array(query)),
        pa.array(place + 1, pa.int32()),
        task.docs.ids.take(pa.array(rows[query, place])),
        pa.array(scores[query, place], pa.float32()),
    ]
    return pa.table(columns, schema=RUN_SCHEMA)


def _query_table(task: NumberedTask, outcome: Outcome) -> pa.Table:
    """Per-query values: what a paired comparison of two systems is computed from."""
    first = np.full(len(task.queries), NOT_FOUND)
    if outcome.ranking is not None:
        first = find(outcome.ranking.rows, task.judgements).best
    columns = [
        task.queries.ids,
        pa.array(task.queries.subsets, pa.string()),
        pa.array(outcome.metrics[task.card.metric], pa.float64()),
        pa.array(np.where(first == NOT_FOUND, 0, first + 1), pa.int32(), mask=first == NOT_FOUND),
    ]
    return pa.table(columns, schema=QUERY_SCHEMA)
