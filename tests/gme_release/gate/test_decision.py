from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from release_miniature import POLICY, good_scores

from gme_data.errors import FoundryError
from gme_data.settings import parse_config
from gme_release.config import Floor, ReleaseConfig
from gme_release.gate.decision import decide
from gme_release.gate.policy import Gate, load_policy
from gme_release.gate.verdict import Verdict

CHECKOUT = Path(__file__).resolve().parents[3]
DIGEST = "d" * 64


def judged(scores: dict[str, Any], scored: str = DIGEST) -> Verdict:
    policy = parse_config(POLICY, Gate, where="policy")
    return decide(scores, policy, model_digest=DIGEST, scored_digest=scored, policy_digest="p")


def test_open() -> None:
    verdict = judged(good_scores())
    assert verdict.passed
    assert verdict.reasons == []
    assert verdict.to_json()["passed"] is True
    assert len(verdict.checks) == 1 + 2 + 1 + 3


def _set(task: int, *keys: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(scores: dict[str, Any]) -> None:
        target = scores["tasks"][task]
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set(0, "scores", "hit_rate_at_10", value=0.49), "floor/place-question-t2t/hit_rate_at_10: 0.490"),
        (_set(0, "scores", "hit_rate_at_10", value=math.nan), "not a finite number"),
        (_set(1, "scores", "hit_rate_at_10", value=math.inf), "complete/flag-i2i"),
        (_set(1, "value", value=None), "complete/flag-i2i|verdict"),
        (_set(1, "queries", value=0), "no queries"),
        (_set(1, "baselines", "untrained", value=0.9), "above untrained/I->I: 0.800, baseline 0.900"),
        (_set(1, "baselines", value={}), "no such baseline for flag-i2i"),
        (_set(1, "value", value=math.nan), "above untrained/I->I"),
        (lambda scores: scores["tasks"].pop(0), "complete/place-question-t2t: the task was not scored"),
        (lambda scores: scores["tasks"].clear(), "not scored"),
        (lambda scores: scores.pop("tasks"), "could not be reached: KeyError"),
        (lambda scores: scores.update(tasks="oops"), "could not be reached"),
    ],
)
def test_closed(change: Callable[[dict[str, Any]], None], reason: str) -> None:
    scores = good_scores()
    change(scores)
    verdict = judged(scores)
    assert not verdict.passed
    assert any(part in "\n".join(verdict.reasons) for part in reason.split("|"))


def test_closed_for_another_model() -> None:
    assert not judged(good_scores(), scored="e" * 64).passed
    assert not judged(good_scores(), scored="").passed


def test_a_verdict_without_checks_is_closed() -> None:
    assert not Verdict(DIGEST, "p", ()).passed


def test_a_gate_is_the_rules_of_any_pipeline_with_what_holds_of_one(tmp_path: Path) -> None:
    policy = load_policy(Path("mlflow/promotion.yaml"), tmp_path)
    floor = Floor(task="flag-i2i", metric="hit_rate_at_10", min=0.5)
    gate = Gate.of(policy, ReleaseConfig(floors=(floor,)), ["flag-i2i", "look-i2i"])
    assert (gate.required_tasks, gate.floors) == (("flag-i2i", "look-i2i"), (floor,))
    assert (gate.above_baselines, gate.no_regression) == (policy.above_baselines, policy.no_regression)
    with pytest.raises(FoundryError, match="required_tasks"):
        Gate.of(policy, ReleaseConfig(), [])


def test_a_type_of_few_queries_is_compared_only_within_the_whole() -> None:
    scores = good_scores()
    scores["tasks"][0]["baselines"]["untrained"] = 0.7  # type: ignore[index]
    scores["tasks"][0]["queries"] = 19  # type: ignore[index]
    assert judged(scores).passed, "19 queries are too few, and the mean over all tasks is above"
    scores["tasks"][0]["queries"] = 20  # type: ignore[index]
    assert judged(scores).reasons == ["above untrained/T->T: 0.600, baseline 0.700"]
    scores["tasks"][1]["baselines"]["untrained"] = 0.9  # type: ignore[index]
    assert "above untrained/all tasks: 0.700, baseline 0.800" in judged(scores).reasons


def test_policy_of_the_workspace_comes_first_and_typos_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mlflow" / "promotion.yaml"
    path.parent.mkdir()
    path.write_text("limit: {}\n")
    with pytest.raises(FoundryError, match="Did you mean 'limits'"):
        load_policy(Path("mlflow/promotion.yaml"), tmp_path)
    path.write_text("required_tasks: [flag-i2i]\nfloors: []\n")
    with pytest.raises(FoundryError, match="floors, required_tasks: what holds of one pipeline") as old:
        load_policy(Path("mlflow/promotion.yaml"), tmp_path)
    assert "under `release:`" in str(old.value.hint)
    with pytest.raises(FoundryError, match="not found"):
        load_policy(Path("mlflow/none.yaml"), tmp_path)
