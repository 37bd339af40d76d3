"""Is a model worse than its champion, by more than the luck of the draw of queries? Numpy on values, nothing else.

Two rules, and which one held is said in each check:

1. **Same evaluation, values of each query known**: paired bootstrap. Both models answered the same queries, so these
   are drawn again in pairs, within each task; a task type is the mean of its tasks. The model is worse if even the
   upper end of the interval of the difference lies below minus the margin.
2. **Another evaluation, or no values per query** (the data changed since, or the champion was recorded by an older
   version): the two are compared on the tasks that both have, on the same metric, by their score intervals. The model
   is worse if the upper end of its interval lies below the lower end of the champion's minus the margin. That is a weak
   test on purpose: data that changed must not shut the gate for ever, and the next model is compared by rule 1 again.

With no task in common nothing can be compared, and what was not compared has not passed: the gate stays closed. A
policy without ``no_regression`` lets floors and baselines judge alone; `gme promote` takes a version by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gme_data.settings import Frozen
from gme_release.query_scores import ModelScores, TaskScores
from gme_release.verdict import Check

Floats = NDArray[np.float64]
_DRAWS_PER_BLOCK = 4 * 2**20


class NoRegression(Frozen):
    """How far below the champion a model may be."""

    overall_margin: float = Field(0.02, ge=0)
    """The mean over all tasks may be this much lower."""
    type_margin: float = Field(0.05, ge=0)
    """The mean of each task type may be this much lower: two trainings of one recipe differ by about that."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How sure it must be that the drop is larger than the margin."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    seed: int = 0
    """Same seed and values, same verdict."""


def compare(model: ModelScores, champion: ModelScores, rule: NoRegression) -> list[Check]:
    """Check `model` against `champion`; one check overall and one for each task type that both have."""
    shared = [name for name in model.tasks if name in champion.tasks and _same_metric(model, champion, name)]
    if not shared:
        return [
            Check(
                "no regression",
                False,
                f"{champion.label} has no task in common, so nothing was compared; `no_regression: null` in the policy "
                "judges without it",
            )
        ]
    if all(_paired(model, champion, name) for name in shared):
        return list(_by_pairs(model, champion, shared, rule))
    return list(_by_intervals(model, champion, shared, rule))


def paired_differences(mine: Floats, theirs: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """[resamples] mean differences of [q] `mine` - `theirs` when the q queries are drawn again with replacement."""
    differences = mine - theirs
    queries = len(differences)
    rows = max(1, _DRAWS_PER_BLOCK // queries)
    parts = [
        differences[rng.integers(0, queries, (min(rows, resamples - start), queries))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def _by_pairs(model: ModelScores, champion: ModelScores, shared: Sequence[str], rule: NoRegression) -> Iterator[Check]:
    rng = np.random.default_rng(rule.seed)
    drawn = {
        name: paired_differences(
            model.tasks[name].values,
            _aligned(model.tasks[name], champion.tasks[name]),
            resamples=rule.resamples,
            rng=rng,
        )
        for name in shared
    }
    for label, names, margin in _groups(model, shared, rule):
        differences = np.mean([drawn[name] for name in names], axis=0)  # [resamples]
        low, high = np.quantile(differences, [1 - rule.confidence, rule.confidence])
        mean = np.mean([model.tasks[name].value - champion.tasks[name].value for name in names])
        detail = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] to {champion.label}, paired by query, margin {margin:.3f}"
        # A comparison with NaN is false, so NaN never passes.
        yield Check(f"no regression/{label}", bool(high >= -margin), detail)


def _by_intervals(
    model: ModelScores, champion: ModelScores, shared: Sequence[str], rule: NoRegression
) -> Iterator[Check]:
    for label, names, margin in _groups(model, shared, rule):
        best = np.mean([model.tasks[name].interval[1] for name in names])
        least = np.mean([champion.tasks[name].interval[0] for name in names])
        why = "another evaluation" if model.evaluation != champion.evaluation else "no values per query"
        detail = f"at best {best:.3f}, {champion.label} at least {least:.3f}, by intervals ({why}), margin {margin:.3f}"
        yield Check(f"no regression/{label}", bool(best >= least - margin), detail)


def _groups(model: ModelScores, names: Sequence[str], rule: NoRegression) -> Iterator[tuple[str, list[str], float]]:
    yield "overall", list(names), rule.overall_margin
    types: dict[str, list[str]] = {}
    for name in names:
        types.setdefault(model.tasks[name].task_type, []).append(name)
    for task_type, group in types.items():
        yield task_type, group, rule.type_margin


def _same_metric(model: ModelScores, champion: ModelScores, name: str) -> bool:
    return model.tasks[name].metric == champion.tasks[name].metric


def _paired(model: ModelScores, champion: ModelScores, name: str) -> bool:
    mine, theirs = model.tasks[name], champion.tasks[name]
    asked_alike = model.evaluation == champion.evaluation and len(mine.query_ids) > 0
    return asked_alike and sorted(mine.query_ids) == sorted(theirs.query_ids)


def _aligned(mine: TaskScores, theirs: TaskScores) -> Floats:
    """[q] values of `theirs` in the order of the queries of `mine`."""
    by_id: Mapping[str, float] = dict(zip(theirs.query_ids, theirs.values, strict=True))
    return np.array([by_id[query] for query in mine.query_ids])
