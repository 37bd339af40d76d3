from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from release_miniature import build_workspace, good_scores, load_facts

from gme_data.errors import FoundryError
from gme_release.run_facts import record_key
from gme_release.tracking.run_metrics import flat_params, score_metrics, training_curves


def test_params_are_flat_text() -> None:
    config = {
        "seed": 1,
        "stage_2": {"lora": {"rank": 8}, "sources": ["flag"], "resume": None, "empty": {}},
        "name": "x",
    }
    assert flat_params(config) == {
        "seed": "1",
        "stage_2.lora.rank": "8",
        "stage_2.sources": '["flag"]',
        "stage_2.resume": "null",
        "stage_2.empty": "{}",
        "name": "x",
    }


def test_metric_names_fit_mlflow_and_values_are_finite() -> None:
    scores = good_scores()
    scores["tasks"][1]["scores"]["hit_rate_at_5"] = math.nan
    metrics = score_metrics(scores)
    assert metrics["umrb/T_to_T/place-question-t2t/hit_rate_at_10"] == pytest.approx(0.7)
    assert metrics["umrb/I_to_I/flag-i2i/baseline/random"] == 0.01
    assert metrics["umrb/I_to_I/mean"] == 0.8
    assert "umrb/I_to_I/flag-i2i/hit_rate_at_5" not in {k for k, v in metrics.items() if not math.isfinite(v)}
    assert not any(mark in name for name in metrics for mark in ">@,")


def test_the_curve_of_a_run_is_the_loss_of_all_its_steps(tmp_path: Path) -> None:
    points = list(training_curves(build_workspace(tmp_path)))
    assert points == [("loss", n, 3.0 / n) for n in range(1, 6)]
    earlier = tmp_path / "checkpoints" / "stage1"  # whose steps come first
    earlier.mkdir()
    (earlier / "curves.json").write_text('{"series": [{"source": "flag", "step": 1, "loss": 9.0}, {"step": 2}]}')
    facts = load_facts(tmp_path)
    facts = replace(facts, outputs={**facts.outputs, "train-1": "checkpoints/stage1"})
    assert list(training_curves(facts)) == [("loss", 1, 9.0), *(("loss", n + 1, 3.0 / n) for n in range(1, 6))]


def test_record_key_is_about_content_and_not_about_the_clock(tmp_path: Path) -> None:
    facts = build_workspace(tmp_path)
    key = record_key(facts, {"floors": []})
    slower = {name: replace(manifest, seconds=1e6) for name, manifest in facts.manifests.items()}
    assert record_key(replace(facts, manifests=slower, tags={"flow": "x"}), {"floors": []}) == key
    assert record_key(facts, {"floors": [1]}) != key
    assert record_key(replace(facts, config=MappingProxyType({"seed": 2}) | {}), {"floors": []}) != key
    other = build_workspace(tmp_path, seed=1)
    assert record_key(other, {"floors": []}) != key


def test_scores_belong_to_the_evaluation_that_the_report_shows(tmp_path: Path) -> None:
    facts = build_workspace(tmp_path)
    assert facts.scored_digest == facts.model_digest
    foreign = replace(facts.manifests["report"], inputs={"evaluation": "0" * 64})
    assert replace(facts, manifests={**facts.manifests, "report": foreign}).scored_digest == ""


def test_unreadable_scores(tmp_path: Path) -> None:
    facts = build_workspace(tmp_path)
    path = facts.folder("report") / "scores.json"
    path.write_text(json.dumps([1]))
    with pytest.raises(FoundryError, match="should be an object"):
        _ = facts.scores
    path.write_text("{")
    with pytest.raises(FoundryError, match=r"scores\.json"):
        _ = facts.scores
