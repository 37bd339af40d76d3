"""A model's scores, query by query, and which evaluation they are of: logged with its run for the next comparison.

Knows files and numbers; neither a tracking server nor what makes a comparison pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.manifest import Manifest
from gme_data.parquet import read_table, write_table
from gme_data.settings import Frozen
from gme_data.structured import read_json
from gme_release.run_facts import RunFacts

SUMMARY = "measured.json"
"""File of the scores by task; every champion so far was recorded with this name."""
QUERIES = "queries.parquet"
"""File of the scores by query."""
_SYSTEM = "model"
"""Name of the evaluated model among the systems of an evaluation."""
_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class TaskScores:
    """A model's scores on one task.

    Attributes:
        value: Mean of `metric` over the queries, 0..1, with its 95 % `interval`.
        query_ids: Ids of the q queries; empty if the evaluation left no values per query.
        values: [q] `metric` of each query.
    """

    name: str
    task_type: str
    metric: str
    value: float
    interval: tuple[float, float]
    query_ids: tuple[str, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ModelScores:
    """A model's scores on one evaluation.

    Attributes:
        label: Name for people, e.g. ``version 3 (champion)``.
        model: Content digest of the model.
        evaluation: See `evaluation_digest`.
        tasks: Scores by name of the task.
    """

    label: str
    model: str
    evaluation: str
    tasks: Mapping[str, TaskScores]


class _TaskSummary(Frozen):
    name: str
    task_type: str
    metric: str
    value: float
    interval: tuple[float, float]


class _ScoresSummary(Frozen):
    """Content of `SUMMARY`."""

    model: str
    evaluation: str
    tasks: tuple[_TaskSummary, ...]


def evaluation_digest(manifests: Mapping[str, Manifest], step: str) -> str:
    """Returns a digest of what the evaluation `step` scored: the tables of its tasks, and how they were scored.

    The tasks lie in the output that the evaluation took as its corpus: that of the corpus' own step, or of synthesis.
    The pictures are covered, because the tables name each by the sha256 of its bytes. Training data lie in the same
    dataset and are no part of the digest: another training set does not make two evaluations incomparable.
    """
    evaluate = manifests[step]
    digest = evaluate.inputs.get("corpus")
    corpus = next((manifest for manifest in manifests.values() if manifest.content == digest), manifests["corpus"])
    scoring = dict(evaluate.config.get("scoring", {}))
    prefix = f"tasks/{scoring.get('split', 'test')}/"
    tables = [[entry.path, entry.sha256] for entry in corpus.files if entry.path.startswith(prefix)]
    settings = {name: scoring.get(name) for name in ("split", "tasks", "depth")}
    if suites := evaluate.config.get("digest"):
        settings["suites"] = suites  # tasks of suites are not among the corpus' files
    # A dataset without tables of tasks is covered as a whole.
    return sha256_json([tables or corpus.content, settings])


def scores_of(facts: RunFacts) -> ModelScores:
    """Returns the scores of the run's evaluation.

    Raises:
        FoundryError: A table is damaged, or a task lacks a field of a score.
    """
    folder = facts.folder(facts.evaluate_step) / "systems" / _SYSTEM / "queries"
    try:
        tasks = {task["name"]: _task_scores(task, folder) for task in facts.scores["tasks"]}
    except (KeyError, TypeError, ValueError) as error:
        raise FoundryError(f"The scores are not as expected: {error!r}", hint="Run `gme report` again.") from error
    digest = evaluation_digest(facts.manifests, facts.evaluate_step)
    return ModelScores("this run", facts.model_digest, digest, tasks)


def write_scores(folder: Path, scores: ModelScores) -> None:
    """Writes `SUMMARY` and `QUERIES` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"task": task.name, "query_id": query, "value": float(value)}
        for task in scores.tasks.values()
        for query, value in zip(task.query_ids, task.values, strict=True)
    ]
    write_table(folder / QUERIES, rows, _SCHEMA)
    tasks = [
        {"name": t.name, "task_type": t.task_type, "metric": t.metric, "value": t.value, "interval": t.interval}
        for t in scores.tasks.values()
    ]
    payload = {"model": scores.model, "evaluation": scores.evaluation, "tasks": tasks}
    (folder / SUMMARY).write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")


def read_scores(folder: Path, label: str) -> ModelScores:
    """Inverts `write_scores`.

    Raises:
        FoundryError: A file is missing or damaged.
    """
    try:
        summary = read_json(folder / SUMMARY, _ScoresSummary)
        table = read_table(folder / QUERIES, _SCHEMA)
        names, ids = table["task"].to_pylist(), table["query_id"].to_pylist()
        values = table["value"].to_numpy()
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, []).append(row)
        tasks = {}
        for task in summary.tasks:
            of_task = rows.get(task.name, [])
            query_ids = tuple(ids[row] for row in of_task)
            tasks[task.name] = TaskScores(**task.model_dump(), query_ids=query_ids, values=values[of_task])
        return ModelScores(label, summary.model, summary.evaluation, tasks)
    except (OSError, ValueError, FoundryError) as error:
        raise FoundryError(
            f"What {label} scored can't be read: {error}",
            hint="Run `gme promote` with the version of a model whose record is whole.",
        ) from error


def _task_scores(task: Mapping[str, Any], folder: Path) -> TaskScores:
    path = folder / f"{task['name']}.parquet"
    ids: tuple[str, ...] = ()
    values: NDArray[np.float64] = np.empty(0)
    if path.is_file():  # older evaluations left none
        table = read_table(path)
        ids, values = tuple(table["query_id"].to_pylist()), table["value"].to_numpy()
    low, high = task["interval"]
    return TaskScores(
        task["name"],
        task["task_type"],
        task["metric"],
        float(task["value"]),
        (float(low), float(high)),
        ids,
        values,
    )
