"""What synthesis would take is estimated from prompts, assumptions and the funnel of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.estimate import CostAssumptions, CostEstimate, estimate_cost, measured_keep_rates
from gme_synthesis.steps.generation import GenerationConfig

PAPER = SynthesisConfig(generation=GenerationConfig(path="flux"))


def estimate(passages: int = 1_000_000, share: float = 0.02, **assumptions: object) -> CostEstimate:
    config = SynthesisConfig(generation=GenerationConfig(path="flux", share=share) if share else None)
    return estimate_cost(config, passages, CostAssumptions.model_validate(assumptions), {})


def test_the_estimate_counts_what_it_says() -> None:
    total = estimate(dollars_per_gpu_hour=2.0)
    steps = {step.step: step for step in total.steps}
    assert steps["question"].seen == 1_000_000
    assert steps["consistency"].seen == 970_000
    assert steps["question"].tokens_out == 35_000_000
    assert total.gpu_hours == pytest.approx(sum(step.gpu_hours for step in total.steps), abs=0.1)
    assert total.dollars == pytest.approx(2 * total.gpu_hours, rel=1e-3)
    assert total.paper_gpu_hours == pytest.approx(600 / 1.102, abs=0.1)
    assert total.pictures > 5 * total.questions


def test_the_estimate_scales_and_follows_its_assumptions() -> None:
    small, large = estimate(10_000), estimate(1_000_000)
    assert large.gpu_hours == pytest.approx(100 * small.gpu_hours, rel=0.05)
    assert estimate(share=1.0).gpu_hours > 10 * estimate(share=0).gpu_hours
    assert estimate(decoded_per_second=700).gpu_hours < large.gpu_hours
    assert estimate(shared_prefix=False).gpu_hours > large.gpu_hours
    classifier = PAPER.classifier.model_copy(update={"sample": 1000})
    sampled = estimate_cost(PAPER.model_copy(update={"classifier": classifier}), 1_000_000, CostAssumptions(), {})
    assert sampled.questions < 1000 < sampled.passages


def test_an_earlier_funnel_replaces_the_assumed_shares(tmp_path: Path) -> None:
    steps = [{"step": "question", "seen": 200, "kept": 20, "rejected": {}}]
    (tmp_path / "funnel.json").write_text(json.dumps({"steps": steps}))
    rates = measured_keep_rates(tmp_path / "funnel.json")
    assert rates == {"question": 0.1}
    assert estimate_cost(PAPER, 1000, CostAssumptions(), rates).questions < 100
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(FoundryError, match="no funnel"):
        measured_keep_rates(tmp_path / "broken.json")


def test_the_estimate_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["synthesize", "--plan", "--passages", "1000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passages"] == 1000
    assert run(["synthesize", "--plan", "--passages", "1000000"]) == 0
    assert "1,000,000 passages give about" in capsys.readouterr().out
    for mistake, message in {
        "--passages=0": "at least one",
        "--drawn-share=2": "share",
        "--passage-chars=0": "chars",
    }.items():
        assert run(["synthesize", "--plan", mistake]) == 2
        assert message in capsys.readouterr().err
