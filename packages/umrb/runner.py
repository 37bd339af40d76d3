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

from gme_data.journal import Journal
from gme_data.parquet import write_table
from gme_data.progress import Progress
from umrb.config import REPORTED, ScoringConfig
from umrb.intervals import bootstrap_interval
from umrb.metrics import NOT_FOUND, Floats, first_relevant_rank
from umrb.results import SubsetScore, SystemScores, TaskScore
from umrb.systems import Outcome, Ranking, System
from umrb.tasks import NumberedTask

VECTORS = ".vectors"
"""Folder of the embedding store within a staging folder. Hidden: it goes when the step is published."""

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
        if write and outcome.ranking is not None:
            _write(self.folder / "runs" / slug(system.name), task, _run_rows(task, outcome.ranking, self.config.kept))
        if write:
            _write_queries(self.folder / "queries" / slug(system.name), task, outcome)
        return summarise(task, outcome.metrics, self.config)


def summarise(task: NumberedTask, metrics: dict[str, Floats], config: ScoringConfig) -> TaskScore:
    """Means, interval and breakdown of per-query values."""
    headline = metrics[task.card.metric]
    subsets = np.array([query.subset for query in task.queries])
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


def _write(folder: Path, task: NumberedTask, rows: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / f"{task.card.name}.parquet", rows, RUN_SCHEMA)


def _run_rows(task: NumberedTask, ranking: Ranking, kept: int) -> list[dict[str, object]]:
    return [
        {"query_id": query.id, "rank": rank, "doc_id": task.docs[row].id, "score": float(score)}
        for query, rows, scores in zip(task.queries, ranking.rows, ranking.scores, strict=True)
        for rank, (row, score) in enumerate(zip(rows[:kept], scores[:kept], strict=True), start=1)
        if row >= 0
    ]


def _write_queries(folder: Path, task: NumberedTask, outcome: Outcome) -> None:
    """Per-query values: what a paired comparison of two systems is computed from."""
    folder.mkdir(parents=True, exist_ok=True)
    ranks = [NOT_FOUND] * len(task.queries)
    if outcome.ranking is not None:
        ranks = first_relevant_rank(outcome.ranking.rows, task.judgements).tolist()
    rows = [
        {
            "query_id": query.id,
            "subset": query.subset,
            "value": float(value),
            "first_relevant": None if rank == NOT_FOUND else rank + 1,
        }
        for query, value, rank in zip(task.queries, outcome.metrics[task.card.metric], ranks, strict=True)
    ]
    write_table(folder / f"{task.card.name}.parquet", rows, QUERY_SCHEMA)
