"""What a pipeline run left, as one record with an identity: params, metrics, tags, before any of it meets MLflow.

Pure functions: reads the files of the steps, writes nothing, knows no tracking server.
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gme_data.digests import canonical_json, sha256_json
from gme_data.manifest import Manifest
from gme_data.scores import read_report_scores
from gme_data.structured import read_json
from gme_release.versioning import VersionedOutputs

WORKSPACE = "gme.workspace"
"""Tag of every run: where it works. Runs of other workspaces are none of our business."""
FLOW_RUN = "gme.prefect.flow_run_"
"""Begin of the tags of ours that name the orchestrator's run: its ``id`` and, where it has a page, its ``url``."""


class _Curves(BaseModel):
    """``curves.json``, whose points are of the step that wrote them."""

    model_config = ConfigDict(frozen=True)

    series: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class RunFacts:
    """What the flow knows when all steps are done.

    Attributes:
        name: Name of the pipeline, e.g. ``tiny``.
        config: The resolved configuration of the whole pipeline.
        manifests: Manifest of each step by its name.
        outputs: Output folder of each step by its name, relative to the workspace, e.g. ``checkpoints/stage2``.
        workspace: The workspace.
        versions: What DVC holds of them.
        model_step: The step whose output is the model; `evaluate_step` judged it, `report_step` wrote ``scores.json``.
        dataset_steps: Steps whose outputs are datasets, with how the run used them.
        tags: Further tags of the run, e.g. the id of the flow run; no part of its identity.
        sections: The field of `config` that configures a step, by its name.
        sources: For each step the step that makes an input, by the input's name.
        tasks: Names of the tasks that the evaluation is over; the gate asks for all of them.
    """

    name: str
    config: Mapping[str, Any]
    manifests: Mapping[str, Manifest]
    outputs: Mapping[str, str]
    workspace: Path
    versions: VersionedOutputs
    model_step: str = "train-2"
    evaluate_step: str = "evaluate"
    report_step: str = "report"
    dataset_steps: Mapping[str, str] = field(
        default_factory=lambda: {"corpus": "training, evaluation", "synthesize": "training", "mine": "training"}
    )
    tags: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    def folder(self, step: str) -> Path:
        """Output folder of a step."""
        return self.workspace / self.outputs[step]

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder(self.model_step)

    @property
    def model_digest(self) -> str:
        """Content digest of the model."""
        return self.manifests[self.model_step].content

    @property
    def scored_digest(self) -> str:
        """Content digest of the model that the scores are of; empty if the report is of another evaluation."""
        evaluation = self.manifests[self.evaluate_step]
        if evaluation.content not in self.manifests[self.report_step].inputs.values():
            return ""
        return evaluation.inputs.get("model", "")

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Content of ``scores.json``.

        Raises:
            FoundryError: It is missing or not what a report writes.
        """
        return read_report_scores(self.folder(self.report_step)).model_dump(mode="json")


def record_key(facts: RunFacts, policy: Mapping[str, Any]) -> str:
    """Identity of a run: sha256 of what it was told, what it made and what it was judged by; not when or how fast."""
    return sha256_json(
        {
            "name": facts.name,
            "config": facts.config,
            "steps": {name: [manifest.key, manifest.content] for name, manifest in facts.manifests.items()},
            "versions": {folder.path: folder.md5 for folder in facts.versions.folders},
            "policy": policy,
        }
    )


def workspace_tag(workspace: Path) -> str:
    """Machine and folder, without what a search would take for the end of a text."""
    return f"{socket.gethostname()}:{workspace.resolve()}".replace("'", "")


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested configuration as ``{"train.lora.rank": "8"}``; a list is one value, as JSON."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_params(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else canonical_json(value)
    return flat


def score_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """Metric name -> value. MLflow takes no ``>`` or ``@`` in names: ``umrb/T_to_IT/<task>/hit_rate_at_5``.

    The mean over all tasks is ``score``: a name without a group is what the page of a run opens on, beside ``loss``.
    Values that are not finite are left out; the gate says so.
    """
    found: dict[str, Any] = {"score": scores.get("overall")}
    for task_type, value in scores.get("types", {}).items():
        found[f"umrb/{_plain(task_type)}/mean"] = value
    for task in scores.get("tasks", []):
        home = f"umrb/{_plain(task['task_type'])}/{task['name']}"
        found[f"{home}/{task['metric']}"] = task["value"]
        found.update({f"{home}/{metric}": value for metric, value in task.get("scores", {}).items()})
        found.update({f"{home}/baseline/{name}": value for name, value in task.get("baselines", {}).items()})
    return {name: float(value) for name, value in found.items() if _is_finite(value)}


def training_curves(facts: RunFacts) -> Iterator[tuple[str, int, float]]:
    """``(metric name, step, value)``: the loss over all sources and stages, one step after the other.

    Curves by source stand at the steps' own runs, which `event_points` names.

    Raises:
        FoundryError: A ``curves.json`` is there and is none.
    """
    paths = (facts.folder(name) / "curves.json" for name in sorted(facts.outputs))
    points = (point for path in paths if path.is_file() for point in read_json(path, _Curves).series)
    losses = (point["loss"] for point in points if _is_finite(point.get("loss")))
    for step, loss in enumerate(losses, start=1):
        yield "loss", step, float(loss)


_OF_SOURCES = ("loss", "accuracy")
_SOURCE = re.compile(r"[\w.\- :/]{1,200}")
"""What MLflow takes in the name of a metric; one that it does not take would cost the others of its batch."""
_SHOWN_AS = {
    "loss": "loss/all",
    "accuracy": "accuracy/all",
    "similarity": "similarity/positives",
    "negative_similarity": "similarity/negatives",
    "temperature": "optimizer/temperature",
    "gradient_norm": "optimizer/gradient_norm",
    "text_rate": "optimizer/rate_language",
    "vision_rate": "optimizer/rate_vision",
    "pairs_per_second": "speed/pairs_per_second",
    "tokens_per_second": "speed/tokens_per_second",
    "computed_to_real": "speed/computed_to_real",
    "peak_memory": "speed/peak_memory_bytes",
}
"""Field of a training event -> metric, in groups as the tracker's page shows them."""


def event_points(event: Mapping[str, Any]) -> list[list[Any]]:
    """``[metric, value, time in ms, step]`` of a training event; equal events give equal points."""
    when, step = int(float(event["time"]) * 1000), int(event["step"])
    found = {name: event[field] for field, name in _SHOWN_AS.items() if field in event}
    if _SOURCE.fullmatch(str(event.get("source") or "")):
        found.update({f"{field}/{event['source']}": event[field] for field in _OF_SOURCES if field in event})
    return [[name, float(value), when, step] for name, value in found.items() if _is_finite(value)]


def _plain(task_type: str) -> str:
    return task_type.replace("->", "_to_")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
