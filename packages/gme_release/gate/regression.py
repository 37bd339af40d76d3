"""Is a model worse than its champion, beyond sampling noise over queries? Numpy on values, nothing else.

There are two rules; each check says which one was applied:

1. **Same evaluation, values of each query known**: paired bootstrap. Both models answered the same queries, so the
   queries of each task are resampled and both models scored on the same sample; a task type is the mean of its tasks.
   The model is worse if even the upper end of the interval of the difference lies below minus the margin.
2. **Another evaluation, or no values per query** (the data changed since, or the champion was recorded by an older
   version): the two are compared on the tasks that both have, on the same metric, by their score intervals. The model
   is worse if the upper end of its interval lies below the lower end of the champion's minus the margin. That is a weak
   test on purpose: data that changed must not close the gate for ever, and the next model is compared by rule 1 again.

With no task in common nothing can be compared, and what was not compared has not passed: the gate stays closed. A
policy without ``no_regression`` lets floors and baselines decide alone; `gme promote` takes a version by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gme_release.gate.policy import NoRegression
from gme_release.gate.query_scores import ModelScores, TaskScores
from gme_release.gate.verdict import Check

Floats = NDArray[np.float64]
_MAX_BLOCK = 4 * 2**20
"""Query indices that are drawn at once: 32 MB."""


def compare_with_champion(model: ModelScores, champion: ModelScores, rule: NoRegression) -> list[Check]:
    """Returns one check of `model` against `champion` overall, and one for each task type that both have."""
    shared = [
        name
        for name, task in model.tasks.items()
        if name in champion.tasks and champion.tasks[name].metric == task.metric
    ]
    if not shared:
        return [
            Check(
                "no regression",
                False,
                f"{champion.label} has no task in common, so nothing was compared; `no_regression: null` in the policy "
                "judges without it",
            )
        ]
    if all(_has_same_queries(model, champion, name) for name in shared):
        return list(_paired_checks(model, champion, shared, rule))
    return list(_interval_checks(model, champion, shared, rule))


def bootstrap_mean_differences(model: Floats, champion: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """Returns [resamples] means of [q] `model` - `champion` over q queries drawn with replacement."""
    differences = model - champion
    queries = len(differences)
    rows = max(1, _MAX_BLOCK // queries)
    blocks = [
        differences[rng.integers(0, queries, (min(rows, resamples - start), queries))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(blocks)


def _paired_checks(
    model: ModelScores, champion: ModelScores, shared: Sequence[str], rule: NoRegression
) -> Iterator[Check]:
    # One generator for all tasks, in the order of the model's tasks: the same seed and values give the same verdict.
    rng = np.random.default_rng(rule.seed)
    bootstrap = {
        name: bootstrap_mean_differences(
            model.tasks[name].values,
            _aligned(model.tasks[name], champion.tasks[name]),
            resamples=rule.resamples,
            rng=rng,
        )
        for name in shared
    }
    for label, names, margin in _groups(model, shared, rule):
        # The queries of two tasks are drawn independently, so resample i of a group is the mean over its tasks.
        differences = np.mean([bootstrap[name] for name in names], axis=0)  # [resamples]
        low, high = np.quantile(differences, [1 - rule.confidence, rule.confidence])
        mean = np.mean([model.tasks[name].value - champion.tasks[name].value for name in names])
        detail = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] to {champion.label}, paired by query, margin {margin:.3f}"
        # A comparison with NaN is false, so NaN never passes.
        yield Check(f"no regression/{label}", bool(high >= -margin), detail)


def _interval_checks(
    model: ModelScores, champion: ModelScores, shared: Sequence[str], rule: NoRegression
) -> Iterator[Check]:
    for label, names, margin in _groups(model, shared, rule):
        upper = np.mean([model.tasks[name].interval[1] for name in names])
        champion_lower = np.mean([champion.tasks[name].interval[0] for name in names])
        reason = "another evaluation" if model.evaluation != champion.evaluation else "no values per query"
        detail = (
            f"at best {upper:.3f}, {champion.label} at least {champion_lower:.3f}, by intervals ({reason}), "
            f"margin {margin:.3f}"
        )
        yield Check(f"no regression/{label}", bool(upper >= champion_lower - margin), detail)


def _groups(model: ModelScores, names: Sequence[str], rule: NoRegression) -> Iterator[tuple[str, list[str], float]]:
    """Yields ``(label, names of tasks, margin)`` for all tasks together, and for each task type."""
    yield "overall", list(names), rule.overall_margin
    types: dict[str, list[str]] = {}
    for name in names:
        types.setdefault(model.tasks[name].task_type, []).append(name)
    for task_type, group in types.items():
        yield task_type, group, rule.type_margin


def _has_same_queries(model: ModelScores, champion: ModelScores, name: str) -> bool:
    query_ids = model.tasks[name].query_ids
    is_same_evaluation = model.evaluation == champion.evaluation and len(query_ids) > 0
    return is_same_evaluation and sorted(query_ids) == sorted(champion.tasks[name].query_ids)


def _aligned(model: TaskScores, champion: TaskScores) -> Floats:
    """Returns the champion's [q] values in the order of the model's queries."""
    by_id: Mapping[str, float] = dict(zip(champion.query_ids, champion.values, strict=True))
    return np.array([by_id[query] for query in model.query_ids])
