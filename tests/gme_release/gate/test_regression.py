"""A model against its champion: by pairs where both were asked alike, by intervals where not, never silently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from release_miniature import POLICY, good_scores

from gme_data.errors import FoundryError
from gme_data.settings import parse_config
from gme_release.gate.decision import Cost, decide
from gme_release.gate.policy import Gate, NoRegression
from gme_release.gate.query_scores import ModelScores, TaskScores, read_scores, write_scores
from gme_release.gate.regression import compare_with_champion

RULE = NoRegression()
QUERIES = 400


def measured(label: str, *, shift: float = 0.0, evaluation: str = "e", queries: bool = True) -> ModelScores:
    tasks = {}
    for name, task_type in (("a-t2t", "T->T"), ("b-t2t", "T->T"), ("c-i2i", "I->I")):
        values = np.clip(np.random.default_rng(len(name)).random(QUERIES) * 0.5 + 0.2 + shift, 0, 1)
        mean = float(values.mean())
        ids = tuple(f"q{n}" for n in range(QUERIES)) if queries else ()
        tasks[name] = TaskScores(
            name, task_type, "ndcg_at_10", mean, (mean - 0.03, mean + 0.03), ids, values if queries else np.empty(0)
        )
    return ModelScores(label, label * 64, evaluation, tasks)


def results(model: ModelScores, champion: ModelScores) -> dict[str, bool]:
    return {check.name: check.passed for check in compare_with_champion(model, champion, RULE)}


def test_equal_models_pass_and_a_drop_beyond_the_margin_does_not() -> None:
    assert results(measured("m"), measured("c")) == {
        "no regression/overall": True,
        "no regression/T->T": True,
        "no regression/I->I": True,
    }
    assert results(measured("m", shift=-0.03), measured("c"))["no regression/overall"] is False
    assert results(measured("m", shift=-0.03), measured("c"))["no regression/T->T"] is True  # its margin is wider
    assert set(results(measured("m", shift=-0.1), measured("c")).values()) == {False}


def test_pairs_are_narrower_than_intervals_and_follow_the_ids() -> None:
    model, champion = measured("m", shift=-0.03), measured("c")
    order = np.random.default_rng(1).permutation(QUERIES)
    task = champion.tasks["a-t2t"]
    shuffled = replace(task, query_ids=tuple(task.query_ids[n] for n in order), values=task.values[order])
    mixed = replace(champion, tasks={**champion.tasks, "a-t2t": shuffled})
    assert compare_with_champion(model, mixed, RULE) == compare_with_champion(model, champion, RULE)
    # The same drop hides in the intervals of two evaluations that are not paired.
    assert all(results(model, measured("c", evaluation="other")).values())


def test_a_champion_of_another_evaluation_is_compared_by_intervals() -> None:
    for champion in (measured("c", evaluation="other"), measured("c", queries=False)):
        assert all(results(measured("m"), champion).values())
        assert not any(results(measured("m", shift=-0.2), champion).values())
        detail = compare_with_champion(measured("m"), champion, RULE)[0].detail
        assert "by intervals" in detail


def test_what_was_not_compared_has_not_passed() -> None:
    [check] = compare_with_champion(measured("m"), ModelScores("c", "", "", {}), RULE)
    assert not check.passed
    assert "no task in common" in check.detail


def test_a_number_that_is_none_never_passes() -> None:
    model = measured("m")
    task = model.tasks["c-i2i"]
    broken = replace(model, tasks={**model.tasks, "c-i2i": replace(task, values=task.values * np.nan)})
    found = results(broken, measured("c"))
    assert (found["no regression/overall"], found["no regression/I->I"]) == (False, False)


def test_a_record_that_cannot_be_read_closes_the_gate(tmp_path: Path) -> None:
    write_scores(tmp_path, measured("c"))
    again = read_scores(tmp_path, "c")
    assert compare_with_champion(measured("m"), again, RULE) == compare_with_champion(
        measured("m"), measured("c"), RULE
    )
    (tmp_path / "queries.parquet").write_bytes(b"PAR1")
    policy = parse_config(POLICY, Gate, where="policy")
    verdict = decide(
        good_scores(), policy, model_digest="d", scored_digest="d", policy_digest="p",
        load_scores=lambda: (measured("m"), read_scores(tmp_path, "c")),
    )  # fmt: skip
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert "could not be compared: FoundryError" in verdict.reasons[0]
    with pytest.raises(FoundryError, match="can't be read"):
        read_scores(tmp_path / "nowhere", "version 3")


def test_limits_and_floors_of_types() -> None:
    raw = {**POLICY, "limits": {"max_megabytes": 10, "max_seconds_per_query": 0.5},
           "type_floors": [{"task_type": "T->T", "min": 0.7}, {"task_type": "T->VD", "min": 0.1}]}  # fmt: skip
    policy = parse_config(raw, Gate, where="policy")

    def reasons(cost: Cost) -> list[str]:
        return decide(
            good_scores(), policy, model_digest="d", scored_digest="d", policy_digest="p", cost=cost
        ).reasons  # fmt: skip

    floors = ["floor/T->T: 0.600, floor 0.700", "floor/T->VD: not scored, floor 0.100"]
    assert reasons(Cost(5.0, 0.1)) == floors
    assert reasons(Cost(11.0, None)) == [
        *floors, "limit/megabytes: 11.000, at most 10", "limit/seconds per query: not measured, at most 0.5",
    ]  # fmt: skip
