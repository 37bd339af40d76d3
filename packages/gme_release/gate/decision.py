"""The gate: may this model be registered? Decided from its scores, its cost, its champion and a policy alone.

Closed is the default: a missing task, a number that is not finite, scores of another model, a champion that can't be
read, or any error on the way to a verdict closes it. How a model is compared with the champion, and what happens where
the two were evaluated differently, is in `gme_release.gate.regression`. Knows no registry and moves no alias.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gme_data.redact import redact
from gme_release.config import Floor, TypeFloor
from gme_release.gate.policy import CostLimits, Gate, NoRegression
from gme_release.gate.query_scores import ModelScores
from gme_release.gate.regression import compare_with_champion
from gme_release.gate.verdict import Check, Verdict
from gme_release.run_facts import RunFacts

_LOGGER = logging.getLogger(__name__)
LoadScores = Callable[[], tuple[ModelScores, ModelScores] | None]
"""Loads the scores of the model and of its champion; returns None if there is no champion."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs; None where it was not measured.

    Attributes:
        megabytes: Size of its files in 10^6 bytes.
        seconds_per_query: Wall time of the evaluation, documents included, divided by its number of queries.
    """

    megabytes: float | None = None
    seconds_per_query: float | None = None


def cost_of(facts: RunFacts) -> Cost:
    """Returns the cost that the manifests of model and evaluation tell."""
    evaluation = facts.manifests[facts.evaluate_step]
    queries = evaluation.counts.get("queries", 0)
    return Cost(
        megabytes=sum(entry.bytes for entry in facts.manifests[facts.model_step].files) / 1e6,
        seconds_per_query=evaluation.seconds / queries if queries else None,
    )


def decide(
    scores: Mapping[str, Any],
    gate: Gate,
    *,
    model_digest: str,
    scored_digest: str,
    policy_digest: str,
    cost: Cost = Cost(),
    load_scores: LoadScores = lambda: None,
) -> Verdict:
    """Checks every condition of the gate. It never raises for what it reads: an error closes the gate.

    Args:
        scores: Content of the report's ``scores.json``.
        gate: The conditions.
        model_digest: Content digest of the model to be registered.
        scored_digest: Content digest of the model that was evaluated; must be the same.
        policy_digest: sha256 of the conditions, for the verdict.
        cost: Size and speed of the model.
        load_scores: Loads the scores of model and champion. It is called inside, so that a damaged record of the
            champion closes the gate with that reason.
    """
    try:
        checks = [
            Check("same model", scored_digest == model_digest, f"scores are of model {scored_digest[:12]}"),
            *_completeness(scores, gate.required_tasks),
            *_floors(scores, gate.floors),
            *_type_floors(scores, gate.type_floors),
            *_above_baselines(scores, gate.above_baselines, gate.min_type_queries),
            *_cost_limits(cost, gate.limits),
        ]
    except Exception as error:  # scores may be anything; whatever goes wrong, the answer is no
        _LOGGER.exception("The gate could not read the scores")
        checks = [Check("verdict", False, redact(f"could not be reached: {type(error).__name__}: {error}"))]
    champion, comparison = _against_champion(gate.no_regression, load_scores)
    return Verdict(model_digest, policy_digest, (*checks, *comparison), champion)


def _against_champion(rule: NoRegression | None, load_scores: LoadScores) -> tuple[str, list[Check]]:
    """Returns the champion's digest, empty if there is no champion, and how the model compares with it."""
    if rule is None:
        return "", []
    try:
        pair = load_scores()
        return (pair[1].model, compare_with_champion(*pair, rule)) if pair else ("", [])
    except Exception as error:
        _LOGGER.exception("The gate could not compare the model with its champion")
        return "", [Check("no regression", False, redact(f"could not be compared: {type(error).__name__}: {error}"))]


def _cost_limits(cost: Cost, limits: CostLimits) -> list[Check]:
    measured = [
        ("limit/megabytes", cost.megabytes, limits.max_megabytes),
        ("limit/seconds per query", cost.seconds_per_query, limits.max_seconds_per_query),
    ]
    return [
        Check(
            name,
            value is not None and value <= limit,
            f"{'not measured' if value is None else f'{value:.3f}'}, at most {limit:g}",
        )
        for name, value, limit in measured
        if limit is not None
    ]


def _type_floors(scores: Mapping[str, Any], floors: Iterable[TypeFloor]) -> list[Check]:
    checks = []
    for floor in floors:
        values = [task["value"] for task in scores["tasks"] if task["task_type"] == floor.task_type]
        mean = sum(values) / len(values) if values else math.nan  # NaN passes no floor
        text = f"{mean:.3f}" if values else "not scored"
        checks.append(Check(f"floor/{floor.task_type}", mean >= floor.min, f"{text}, floor {floor.min:.3f}"))
    return checks


def _completeness(scores: Mapping[str, Any], required: Iterable[str]) -> list[Check]:
    tasks = {task["name"]: task for task in scores["tasks"]}
    checks = []
    for name in required:
        if name not in tasks:
            checks.append(Check(f"complete/{name}", False, "the task was not scored"))
            continue
        invalid = sorted(metric for metric, value in _all_scores(tasks[name]).items() if not _is_score(value))
        if tasks[name]["queries"] < 1:
            checks.append(Check(f"complete/{name}", False, "no queries"))
        elif invalid:
            checks.append(Check(f"complete/{name}", False, f"not a finite number in [0, 1]: {', '.join(invalid)}"))
        else:
            checks.append(Check(f"complete/{name}", True, "scored"))
    return checks


def _floors(scores: Mapping[str, Any], floors: Iterable[Floor]) -> list[Check]:
    tasks = {task["name"]: _all_scores(task) for task in scores["tasks"]}
    checks = []
    for floor in floors:
        value = tasks.get(floor.task, {}).get(floor.metric)
        # A comparison with NaN is false, so NaN never passes a floor.
        passed = value is not None and value >= floor.min
        text = "not scored" if value is None else f"{value:.3f}"
        checks.append(Check(f"floor/{floor.task}/{floor.metric}", passed, f"{text}, floor {floor.min:.3f}"))
    return checks


def _above_baselines(scores: Mapping[str, Any], names: Iterable[str], min_queries: int) -> list[Check]:
    by_type: dict[str, list[Mapping[str, Any]]] = {}
    for task in scores["tasks"]:
        by_type.setdefault(task["task_type"], []).append(task)
    groups = {"all tasks": list(scores["tasks"])} if by_type else {}
    groups |= {
        name: tasks for name, tasks in sorted(by_type.items()) if sum(task["queries"] for task in tasks) >= min_queries
    }
    return [_above_baseline(group, name, tasks) for name in names for group, tasks in groups.items()]


def _above_baseline(group: str, baseline: str, tasks: Sequence[Mapping[str, Any]]) -> Check:
    name = f"above {baseline}/{group}"
    missing = sorted(task["name"] for task in tasks if baseline not in task["baselines"])
    if missing:
        return Check(name, False, f"no such baseline for {', '.join(missing)}")
    model_mean = sum(task["value"] for task in tasks) / len(tasks)
    baseline_mean = sum(task["baselines"][baseline] for task in tasks) / len(tasks)
    # A tie fails: a model that learned nothing scores exactly as the untrained baseline.
    return Check(name, model_mean > baseline_mean, f"{model_mean:.3f}, baseline {baseline_mean:.3f}")


def _all_scores(task: Mapping[str, Any]) -> dict[str, float]:
    """Returns every score of a task by metric, the headline metric included."""
    return {**task["scores"], task["metric"]: task["value"]}


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0.0 <= value <= 1.0
