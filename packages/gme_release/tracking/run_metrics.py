"""Params and metrics of a pipeline run, as MLflow takes them. Pure: reads the files of the steps, writes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from gme_data.digests import canonical_json
from gme_data.structured import read_json
from gme_release.run_facts import RunFacts


class _Curves(BaseModel):
    """Content of ``curves.json``; the fields of a point depend on the step that wrote it."""

    model_config = ConfigDict(frozen=True)

    series: tuple[dict[str, Any], ...] = ()


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns a nested configuration as ``{"train.lora.rank": "8"}``; a list is one value, as JSON."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_params(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else canonical_json(value)
    return flat


def score_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scores of a report as MLflow metrics, such as ``umrb/T_to_IT/<task>/hit_rate_at_5``.

    MLflow takes no ``>`` or ``@`` in names. The mean over all tasks is ``score``: MLflow's page of a run shows metrics
    without a group first. Values that are not finite are left out; the gate reports them.
    """
    metrics: dict[str, Any] = {"score": scores.get("overall")}
    for task_type, value in scores.get("types", {}).items():
        metrics[f"umrb/{_metric_group(task_type)}/mean"] = value
    for task in scores.get("tasks", []):
        group = f"umrb/{_metric_group(task['task_type'])}/{task['name']}"
        metrics[f"{group}/{task['metric']}"] = task["value"]
        metrics.update({f"{group}/{metric}": value for metric, value in task.get("scores", {}).items()})
        metrics.update({f"{group}/baseline/{name}": value for name, value in task.get("baselines", {}).items()})
    return {name: float(value) for name, value in metrics.items() if _is_finite(value)}


def training_curves(facts: RunFacts) -> Iterator[tuple[str, int, float]]:
    """Yields ``(metric name, step, value)``: the loss over all sources, with the steps of all stages numbered through.

    Curves by source are logged with the runs of the steps; see `gme_release.tracking.step_events.event_points`.

    Raises:
        FoundryError: A ``curves.json`` can't be read.
    """
    # Sorted, so that the curve of stage 1 comes before that of stage 2.
    paths = (facts.folder(name) / "curves.json" for name in sorted(facts.outputs))
    points = (point for path in paths if path.is_file() for point in read_json(path, _Curves).series)
    losses = (point["loss"] for point in points if _is_finite(point.get("loss")))
    for step, loss in enumerate(losses, start=1):
        yield "loss", step, float(loss)


def _metric_group(task_type: str) -> str:
    return task_type.replace("->", "_to_")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
