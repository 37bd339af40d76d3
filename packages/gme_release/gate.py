"""The gate: may this model be registered? Decided from its scores and a policy of floors, nothing else.

Closed is the default: a missing task, a number that is not finite, scores of another model, or any error on the way
to a verdict closes it. Knows no registry and moves no alias.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from gme_data.settings import Frozen, load_config

_LOGGER = logging.getLogger(__name__)
_CHECKOUT = Path(__file__).resolve().parents[2]


class Floor(Frozen):
    """An absolute floor."""

    task: str
    """Name of a task, as in ``task.yaml``."""
    metric: str
    """Name of one of its scores, e.g. ``hit_rate_at_10``."""
    min: float
    """The score must be at least this."""


class PromotionPolicy(Frozen):
    """What a model must show before it is registered (``mlflow/promotion.yaml``)."""

    required_tasks: tuple[str, ...] = Field(min_length=1)
    """Tasks that must have been scored, every score finite."""
    floors: tuple[Floor, ...] = ()
    """Absolute floors."""
    above_baselines: tuple[str, ...] = ()
    """Baselines that the mean of every task type must exceed, on the headline metric."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition and how it came out."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision about exactly one model.

    Attributes:
        model_digest: Content digest of the model that was judged.
        policy_digest: sha256 of the policy it was judged by.
        checks: Every condition, also those that passed.
    """

    model_digest: str
    policy_digest: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed; a verdict without checks has not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why the gate is closed, one line a failed check; empty if it is open."""
        return [f"{check.name}: {check.detail}" for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON value, `passed` and `reasons` spelled out."""
        return {**asdict(self), "passed": self.passed, "reasons": self.reasons}


def load_policy(path: Path, workspace: Path) -> PromotionPolicy:
    """Read the policy: `path` below the workspace, else below the source checkout this module lies in.

    Raises:
        FoundryError: It is in neither place, or a field is bad.
    """
    candidates = [workspace / path, _CHECKOUT / path]
    return load_config(next((found for found in candidates if found.is_file()), candidates[0]), PromotionPolicy)


def judge(
    scores: Mapping[str, Any], policy: PromotionPolicy, *, model_digest: str, scored_digest: str, policy_digest: str
) -> Verdict:
    """Judge the scores of a model. Never raises for what stands in `scores`: an error closes the gate.

    Args:
        scores: Content of ``scores.json``.
        policy: The floors.
        model_digest: Content digest of the model to be registered.
        scored_digest: Content digest of the model that was evaluated; must be the same.
        policy_digest: Noted in the verdict.
    """
    try:
        checks = (
            Check("same model", scored_digest == model_digest, f"scores are of model {scored_digest[:12]}"),
            *_completeness(scores, policy.required_tasks),
            *_floors(scores, policy.floors),
            *_above_baselines(scores, policy.above_baselines),
        )
    except Exception as error:  # whatever goes wrong, the answer is no
        _LOGGER.exception("The gate could not judge the scores")
        checks = (Check("verdict", False, f"could not be reached: {type(error).__name__}: {error}"),)
    return Verdict(model_digest, policy_digest, checks)


def _completeness(scores: Mapping[str, Any], required: Iterable[str]) -> list[Check]:
    tasks = {task["name"]: task for task in scores["tasks"]}
    checks = []
    for name in required:
        if name not in tasks:
            checks.append(Check(f"complete/{name}", False, "the task was not scored"))
            continue
        bad = sorted(metric for metric, value in _all_scores(tasks[name]).items() if not _is_score(value))
        detail = f"not a finite number in [0, 1]: {', '.join(bad)}" if bad else "scored"
        if tasks[name]["queries"] < 1:
            bad, detail = ["queries"], "no queries"
        checks.append(Check(f"complete/{name}", not bad, detail))
    return checks


def _floors(scores: Mapping[str, Any], floors: Iterable[Floor]) -> list[Check]:
    tasks = {task["name"]: _all_scores(task) for task in scores["tasks"]}
    checks = []
    for floor in floors:
        value = tasks.get(floor.task, {}).get(floor.metric)
        # A comparison with NaN is false, so NaN never passes a floor.
        passed = value is not None and value >= floor.min
        shown = "not scored" if value is None else f"{value:.3f}"
        checks.append(Check(f"floor/{floor.task}/{floor.metric}", passed, f"{shown}, floor {floor.min:.3f}"))
    return checks


def _above_baselines(scores: Mapping[str, Any], names: Iterable[str]) -> list[Check]:
    types = sorted({task["task_type"] for task in scores["tasks"]})
    return [_above_baseline(task_type, name, scores) for name in names for task_type in types]


def _above_baseline(task_type: str, baseline: str, scores: Mapping[str, Any]) -> Check:
    name = f"above {baseline}/{task_type}"
    tasks = [task for task in scores["tasks"] if task["task_type"] == task_type]
    missing = sorted(task["name"] for task in tasks if baseline not in task["baselines"])
    if missing:
        return Check(name, False, f"no such baseline for {', '.join(missing)}")
    ours = sum(task["value"] for task in tasks) / len(tasks)
    theirs = sum(task["baselines"][baseline] for task in tasks) / len(tasks)
    return Check(name, ours > theirs, f"{ours:.3f}, baseline {theirs:.3f}")


def _all_scores(task: Mapping[str, Any]) -> dict[str, float]:
    return {**task["scores"], task["metric"]: task["value"]}


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0.0 <= value <= 1.0
