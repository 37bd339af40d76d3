"""What the report is made of, read from the folders that the other steps wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, require
from gme_data.structured import read_json
from umrb.cards import EXAMPLES, Sample, read_sample
from umrb.results import SCORES, SystemScores, read_scores
from umrb.runner import slug

_MADE_BY = {
    "corpus": "corpus",
    "synthetic": "synthesize",
    "baselines": "baselines",
    "evaluation": "evaluate",
    "model": "train",
}


@dataclass(frozen=True, slots=True)
class FunnelStage:
    """One stage of synthesis: what came in, what was kept, and why the rest was not."""

    step: str
    entered: int
    kept: int
    rejected: dict[str, int]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the page shows.

    Attributes:
        folders: Of the inputs, by name.
        model: Scores and controls of the model.
        reduced: The model given less of each fused item: its text alone, its picture alone.
        baselines: In the order of the table.
        manifests: By input name.
        split: ``dev`` or ``test``.
        curves: Points of the training curves of every input that has any, in the order of the inputs; a stage trained
            before the last one may be given as a further input, and its curves come first if it does.
        funnel: Stages of synthesis; empty if it wrote none.
        samples: Some vectors of the model on each task.
    """

    folders: Mapping[str, Path]
    model: SystemScores
    reduced: list[SystemScores]
    baselines: list[SystemScores]
    manifests: dict[str, Manifest]
    split: str
    curves: list[dict[str, Any]]
    funnel: list[FunnelStage]
    samples: list[Sample]

    @property
    def model_digest(self) -> str:
        """Content digest of the model that was scored."""
        return self.manifests["model"].content

    def query_file(self, step: str, system: str, task: str) -> Path:
        """Where a step wrote the per-query values of a system on a task."""
        return self.folders[step] / "queries" / slug(system) / f"{task}.parquet"

    def run_file(self, task: str) -> Path:
        """Where the model's ranking of a task is."""
        return self.folders["evaluation"] / "runs" / slug(self.model.system) / f"{task}.parquet"


def read_facts(inputs: Mapping[str, Path]) -> Facts:
    """Read the outputs of the other steps.

    Raises:
        FoundryError: One is missing or damaged, or model and baselines were not scored on the same queries.
    """
    manifests = {name: require(folder, _MADE_BY.get(name, name)) for name, folder in inputs.items()}
    model, *reduced = read_scores(inputs["evaluation"] / SCORES)
    baselines = read_scores(inputs["baselines"] / SCORES)
    _check_comparable(model, baselines)
    return Facts(
        folders=inputs,
        model=model,
        reduced=reduced,
        baselines=baselines,
        manifests=manifests,
        split=str(manifests["evaluation"].config["scoring"]["split"]),
        curves=[point for name in inputs for point in _curve(inputs[name], manifests[name].step)],
        samples=[
            sample
            for task in model.tasks
            if (sample := read_sample(inputs["evaluation"] / EXAMPLES, task.name, task.task_type))
        ],
        funnel=[_stage(row) for row in _list(inputs["synthetic"] / "funnel.json", "steps")],
    )


def _check_comparable(model: SystemScores, baselines: list[SystemScores]) -> None:
    known = model.by_name
    for system in baselines:
        for task in system.tasks:
            mine = known.get(task.name)
            if mine is not None and (mine.queries, mine.pool, mine.metric) != (task.queries, task.pool, task.metric):
                raise FoundryError(
                    f"'{system.system}' was scored on another version of the task {task.name} than the model.",
                    hint="Run `gme baselines` and `gme evaluate` with the same scoring settings.",
                )


def _curve(folder: Path, step: str) -> list[dict[str, Any]]:
    return [{"stage": step, **point} for point in _list(folder / "curves.json", "series")]


def _list(path: Path, field: str) -> list[dict[str, Any]]:
    """A list of objects in a JSON file that a run may not have written."""
    if not path.exists():
        return []
    payload = read_json(path, object, hint="Run the step that wrote it again.")
    rows = payload.get(field, []) if isinstance(payload, dict) else payload
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _stage(row: dict[str, Any]) -> FunnelStage:
    rejected = row.get("rejected") or {}
    if isinstance(rejected, int):
        rejected = {"rejected": rejected}
    kept = int(row.get("kept", 0))
    entered = int(row.get("seen", kept + sum(rejected.values())))
    return FunnelStage(str(row.get("step", "?")), entered, kept, {str(k): int(v) for k, v in rejected.items()})
