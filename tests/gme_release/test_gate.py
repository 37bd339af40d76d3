from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from release_miniature import POLICY, good_scores

from gme_data.errors import FoundryError
from gme_data.settings import parse_config
from gme_release.gate import PromotionPolicy, Verdict, judge, load_policy

CHECKOUT = Path(__file__).resolve().parents[2]
DIGEST = "d" * 64


def judged(scores: dict[str, Any], scored: str = DIGEST) -> Verdict:
    policy = parse_config(POLICY, PromotionPolicy, where="policy")
    return judge(scores, policy, model_digest=DIGEST, scored_digest=scored, policy_digest="p")


def test_open() -> None:
    verdict = judged(good_scores())
    assert verdict.passed
    assert verdict.reasons == []
    assert verdict.to_json()["passed"] is True
    assert len(verdict.checks) == 1 + 2 + 1 + 2


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


def test_committed_policy_names_every_task_type(tmp_path: Path) -> None:
    policy = load_policy(Path("mlflow/promotion.yaml"), tmp_path)
    assert {name.rpartition("-")[2] for name in policy.required_tasks} == {
        "t2t", "i2i", "t2i", "i2t", "t2vd", "t2it", "it2t", "it2i", "it2it",
    }  # fmt: skip
    assert {floor.task for floor in policy.floors} <= set(policy.required_tasks)


def test_policy_of_the_workspace_comes_first_and_typos_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mlflow" / "promotion.yaml"
    path.parent.mkdir()
    path.write_text("required_tasks: [flag-i2i]\nfloor: []\n")
    with pytest.raises(FoundryError, match="Did you mean 'floors'"):
        load_policy(Path("mlflow/promotion.yaml"), tmp_path)
    path.write_text("required_tasks: []\n")
    with pytest.raises(FoundryError, match="required_tasks"):
        load_policy(Path("mlflow/promotion.yaml"), tmp_path)
    with pytest.raises(FoundryError, match="not found"):
        load_policy(Path("mlflow/none.yaml"), tmp_path)
