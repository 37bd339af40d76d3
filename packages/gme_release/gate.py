"""The gate: may this model be registered? Decided from its scores, its cost, its champion and a policy, nothing else.

Closed is the default: a missing task, a number that is not finite, scores of another model, a champion that cannot be
read, or any error on the way to a verdict closes it. How a model is compared with the champion, and what happens where
the two were evaluated differently, is in `gme_release.regression`. Knows no registry and moves no alias.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.redact import redact
from gme_data.settings import Frozen, parse_config, read_raw
from gme_release.config import Floor, ReleaseConfig, TypeFloor
from gme_release.query_scores import ModelScores
from gme_release.records import RunFacts
from gme_release.regression import NoRegression, compare
from gme_release.verdict import Check, Verdict

__all__ = ["Check", "Cost", "Gate", "PromotionPolicy", "Verdict", "cost_of", "judge", "load_policy"]

_LOGGER = logging.getLogger(__name__)
Comparison = Callable[[], tuple[ModelScores, ModelScores] | None]
_CHECKOUT = Path(__file__).resolve().parents[2]


class Limits(Frozen):
    """What a model may cost. A limit that is set closes the gate also where the cost was not measured."""

    max_megabytes: float | None = Field(None, gt=0)
    """Size of the model's files, in MB."""
    max_seconds_per_query: float | None = Field(None, gt=0)
    """Wall time of the whole evaluation (encoding of the documents included) by its number of queries, in seconds. It
    depends on the machine and on what else it does, so leave room: this finds what is ten times too slow."""


class PromotionPolicy(Frozen):
    """What the model of any pipeline must show before it is registered (``mlflow/promotion.yaml``).

    Every task of its evaluation must be scored besides, every number finite; floors stand in the pipeline's own file.
    """

    no_regression: NoRegression | None = NoRegression()
    """How far below the champion it may be; null does not compare."""
    limits: Limits = Limits()
    """Size and speed."""
    above_baselines: tuple[str, ...] = ()
    """Baselines that must be exceeded on the headline metric: by the mean over all tasks, and by that of every task
    type with `min_type_queries` queries."""
    min_type_queries: int = Field(50, ge=1)
    """A task type of fewer queries is not compared with baselines by itself: one query more would turn it."""


class Gate(PromotionPolicy):
    """All that one pipeline's model is judged by: the rules of any, its own floors, the tasks of its evaluation."""

    required_tasks: tuple[str, ...] = Field(min_length=1)
    """Tasks that must have been scored, every score finite."""
    floors: tuple[Floor, ...] = ()
    """Absolute floors of tasks."""
    type_floors: tuple[TypeFloor, ...] = ()
    """Absolute floors of task types."""

    @classmethod
    def of(cls, policy: PromotionPolicy, config: ReleaseConfig, tasks: Iterable[str]) -> Gate:
        """The gate of a pipeline.

        Raises:
            FoundryError: Its evaluation has no task.
        """
        own = {"required_tasks": tuple(tasks), "floors": config.floors, "type_floors": config.type_floors}
        return parse_config({**dict(policy), **own}, cls, where="the gate")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs; None where it was not measured.

    Attributes:
        megabytes: Size of its files.
        seconds_per_query: Wall time of the evaluation, documents included, by its number of queries.
    """

    megabytes: float | None = None
    seconds_per_query: float | None = None


def cost_of(facts: RunFacts) -> Cost:
    """Read from the manifests: sizes of the model's files, time and queries of the evaluation that judged it."""
    evaluation = facts.manifests[facts.evaluate_step]
    queries = evaluation.counts.get("queries", 0)
    return Cost(
        megabytes=sum(entry.bytes for entry in facts.manifests[facts.model_step].files) / 1e6,
        seconds_per_query=evaluation.seconds / queries if queries else None,
    )


def load_policy(path: Path, workspace: Path) -> PromotionPolicy:
    """Read the policy: `path` below the workspace, else below the source checkout this module lies in.

    Raises:
        FoundryError: It is in neither place, or a field is bad.
    """
    candidates = [workspace / path, _CHECKOUT / path]
    raw, where = read_raw(next((found for found in candidates if found.is_file()), candidates[0]))
    if moved := sorted(raw.keys() & {"required_tasks", "floors", "type_floors"}):
        raise FoundryError(
            f"{where}: {', '.join(moved)}: what holds of one pipeline stands in its own file now.",
            hint="Put floors under `release:` of the pipeline file; all tasks of an evaluation are required anyway.",
        )
    return parse_config(raw, PromotionPolicy, where=where)


def judge(
    scores: Mapping[str, Any],
    policy: Gate,
    *,
    model_digest: str,
    scored_digest: str,
    policy_digest: str,
    cost: Cost = Cost(),
    comparison: Comparison = lambda: None,
) -> Verdict:
    """Judge the scores of a model. Never raises for what it reads: an error closes the gate.

    Args:
        scores: Content of ``scores.json``.
        policy: The conditions.
        model_digest: Content digest of the model to be registered.
        scored_digest: Content digest of the model that was evaluated; must be the same.
        policy_digest: Noted in the verdict.
        cost: Size and speed.
        comparison: Gives the model and its champion as measured, None if there is no champion. Called here, so that
            whatever is wrong with the champion's record closes the gate with that reason.
    """
    try:
        checks = [
            Check("same model", scored_digest == model_digest, f"scores are of model {scored_digest[:12]}"),
            *_completeness(scores, policy.required_tasks),
            *_floors(scores, policy.floors),
            *_type_floors(scores, policy.type_floors),
            *_above_baselines(scores, policy.above_baselines, policy.min_type_queries),
            *_limits(cost, policy.limits),
        ]
    except Exception as error:  # whatever goes wrong, the answer is no
        _LOGGER.exception("The gate could not judge the scores")
        checks = [Check("verdict", False, redact(f"could not be reached: {type(error).__name__}: {error}"))]
    champion, compared = _against_champion(policy.no_regression, comparison)
    return Verdict(model_digest, policy_digest, (*checks, *compared), champion)


def _against_champion(rule: NoRegression | None, comparison: Comparison) -> tuple[str, list[Check]]:
    """Digest of the champion, empty if there is none, and how the model compares with it."""
    if rule is None:
        return "", []
    try:
        pair = comparison()
        return (pair[1].model, compare(*pair, rule)) if pair else ("", [])
    except Exception as error:
        _LOGGER.exception("The gate could not compare the model with its champion")
        return "", [Check("no regression", False, redact(f"could not be compared: {type(error).__name__}: {error}"))]


def _limits(cost: Cost, limits: Limits) -> list[Check]:
    asked = [
        ("limit/megabytes", cost.megabytes, limits.max_megabytes),
        ("limit/seconds per query", cost.seconds_per_query, limits.max_seconds_per_query),
    ]
    return [
        Check(
            name,
            found is not None and found <= limit,
            f"{'not measured' if found is None else f'{found:.3f}'}, at most {limit:g}",
        )
        for name, found, limit in asked
        if limit is not None
    ]


def _type_floors(scores: Mapping[str, Any], floors: Iterable[TypeFloor]) -> list[Check]:
    checks = []
    for floor in floors:
        values = [task["value"] for task in scores["tasks"] if task["task_type"] == floor.task_type]
        mean = sum(values) / len(values) if values else math.nan
        shown = f"{mean:.3f}" if values else "not scored"
        checks.append(Check(f"floor/{floor.task_type}", mean >= floor.min, f"{shown}, floor {floor.min:.3f}"))
    return checks


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


def _above_baselines(scores: Mapping[str, Any], names: Iterable[str], min_queries: int) -> list[Check]:
    by_type: dict[str, list[Mapping[str, Any]]] = {}
    for task in scores["tasks"]:
        by_type.setdefault(task["task_type"], []).append(task)
    compared = {"all tasks": list(scores["tasks"])} if by_type else {}
    compared |= {
        name: tasks for name, tasks in sorted(by_type.items()) if sum(task["queries"] for task in tasks) >= min_queries
    }
    return [_above_baseline(group, name, tasks) for name in names for group, tasks in compared.items()]


def _above_baseline(group: str, baseline: str, tasks: Sequence[Mapping[str, Any]]) -> Check:
    name = f"above {baseline}/{group}"
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
