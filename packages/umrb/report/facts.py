"""Reads what a report shows: the results of one model and, of a pipeline, the outputs of its other steps.

Needs no data, no model and no mteb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gme_data.errors import FoundryError
from gme_data.funnel import FUNNEL, FunnelStep, read_funnel
from gme_data.manifest import Manifest, require
from gme_data.scores import SystemScores, read_systems
from gme_data.settings import parse_config
from gme_data.structured import read_json
from umrb.config import EvaluationConfig
from umrb.registry import SUITES, Dataset, load_suite
from umrb.report.suite_table import SuiteTable, suite_table
from umrb.scoring.cards import EXAMPLES, RetrievalExample, VectorSample, read_examples, read_vector_sample
from umrb.scoring.evaluator import MODEL, system_folder
from umrb.scoring.result_files import TaskRecord, read_results
from umrb.scoring.run_files import QUERIES

_STEP_OF_INPUT = {
    "corpus": "corpus",
    "synthetic": "synthesize",
    "baselines": "baselines",
    "evaluation": "evaluate",
    "model": "train",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the page shows.

    Attributes:
        label: Name of the model.
        revision: Content digest of a model that a pipeline trained, or else the revision of the model's results.
        model: Scores and controls of the model.
        records: The records of its results, by task.
        suites: Tables of the published suites among those of the evaluation.
        examples: Hits and misses by task type.
        samples: Some vectors of the model on each task.
        split: Split of the corpus's tasks.
        baselines: Scores of the baselines in the order of the table; none outside of a pipeline.
        reduced: Scores of the model with less of each fused item: its text alone, its picture alone.
        folders: Outputs of the pipeline's steps, by input name.
        manifests: Their manifests, by input name.
        curves: Points of the training curves of every input that has any, in the order of the inputs.
        funnel: Stages of synthesis; empty if it wrote none.
    """

    label: str
    revision: str
    model: SystemScores
    records: Mapping[str, TaskRecord]
    suites: tuple[SuiteTable, ...]
    examples: Mapping[str, Sequence[RetrievalExample]]
    samples: tuple[VectorSample, ...]
    split: str = "test"
    baselines: tuple[SystemScores, ...] = ()
    reduced: tuple[SystemScores, ...] = ()
    folders: Mapping[str, Path] | None = None
    manifests: Mapping[str, Manifest] | None = None
    curves: tuple[dict[str, Any], ...] = ()
    funnel: tuple[FunnelStep, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall time of all tasks whose results record it."""
        return sum(record.seconds or 0.0 for record in self.records.values())

    @property
    def encoded(self) -> int:
        """How many contents were encoded for these results."""
        return sum(record.encoded for record in self.records.values())

    @property
    def contents(self) -> int:
        """How many queries and documents the tasks have."""
        return sum(task.queries + task.pool for task in self.model.tasks)

    def query_file(self, step: str, system: str, task: str) -> Path:
        """Return the path of the per-query values of a system on a task, by the step of the pipeline that wrote it."""
        return system_folder((self.folders or {})[step], system) / QUERIES / f"{task}.parquet"


def read_pipeline(inputs: Mapping[str, Path]) -> Facts:
    """Read the outputs of a pipeline's steps.

    Raises:
        FoundryError: An output is missing or damaged, or model and baselines were not scored on the same queries.
    """
    manifests = {name: require(folder, _STEP_OF_INPUT.get(name, name)) for name, folder in inputs.items()}
    model, *reduced = read_systems(inputs["evaluation"])
    baselines = read_systems(inputs["baselines"])
    _check_comparable(model, baselines)
    # An evaluation of an earlier version may have fields under earlier names, which the error tells.
    where = f"{inputs['evaluation']}, its configuration; run `gme evaluate` again"
    config = parse_config(manifests["evaluation"].config, EvaluationConfig, where=where)
    folder = system_folder(inputs["evaluation"], MODEL)
    results = {record.score.name: record for record in read_results(folder)}
    records = {task.name: results[task.name] for task in model.tasks if task.name in results}
    # The corpus's own tasks and folders of tasks have no published table.
    published = [suite for suite in config.suites if suite.tasks is None and suite.suite in SUITES]
    return Facts(
        label=MODEL,
        revision=manifests["model"].content,
        model=model,
        records=records,
        suites=tuple(suite_table(suite.suite, MODEL, load_suite(suite.suite), records) for suite in published),
        examples=_examples(folder, model),
        samples=_samples(folder, model),
        split=config.scoring.split,
        baselines=baselines,
        reduced=tuple(reduced),
        folders=inputs,
        manifests=manifests,
        curves=tuple(
            {"stage": manifests[name].step, **point}
            for name in inputs
            for point in _read_rows(inputs[name] / "curves.json", "series")
        ),
        funnel=read_funnel(funnel) if (funnel := inputs["synthetic"] / FUNNEL).exists() else (),
    )


def read_suite(suite: str, datasets: Sequence[Dataset], folder: Path) -> Facts:
    """Read the results of one model on a suite from the folder that `gme umrb run` filled.

    Raises:
        FoundryError: The folder has no result of this suite.
    """
    results = {record.score.name: record for record in read_results(folder)}
    records = {task: results[task] for dataset in datasets for task in dataset.tasks if task in results}
    if not records:
        raise FoundryError(f"{folder} has no result of the suite {suite}.", hint=f"`gme umrb run --suite {suite}`")
    first = next(iter(records.values()))
    model = SystemScores(system=first.model, tasks=tuple(record.score for record in records.values()))
    return Facts(
        label=first.model,
        revision=first.revision,
        model=model,
        records=records,
        suites=(suite_table(suite, first.model, datasets, records),),
        examples=_examples(folder, model),
        samples=_samples(folder, model),
    )


def _examples(folder: Path, model: SystemScores) -> dict[str, list[RetrievalExample]]:
    examples: dict[str, list[RetrievalExample]] = {}
    for task in model.tasks:
        examples.setdefault(task.task_type, []).extend(read_examples(folder / EXAMPLES / f"{task.name}.json"))
    return examples


def _samples(folder: Path, model: SystemScores) -> tuple[VectorSample, ...]:
    samples = (read_vector_sample(folder / EXAMPLES, task.name, task.task_type) for task in model.tasks)
    return tuple(sample for sample in samples if sample)


def _check_comparable(model: SystemScores, baselines: Sequence[SystemScores]) -> None:
    scores = model.by_name
    for system in baselines:
        for task in system.tasks:
            score = scores.get(task.name)
            if score and (score.queries, score.pool, score.metric) != (task.queries, task.pool, task.metric):
                raise FoundryError(
                    f"'{system.system}' was scored on another version of the task {task.name} than the model.",
                    hint="Run `gme baselines` and `gme evaluate` with the same scoring settings.",
                )


def _read_rows(path: Path, field: str) -> list[dict[str, Any]]:
    """The list of objects in a field of a JSON file; empty if the step did not write the file."""
    if not path.exists():
        return []
    payload = read_json(path, object, hint="Run the step that wrote it again.")
    rows = payload.get(field, []) if isinstance(payload, dict) else payload
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
