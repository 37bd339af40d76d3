"""What a run would take, how good writers and filters are, and what their data is worth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.examples import Example, read_examples, write_examples
from gme_data.images import ImageStore, write_images
from gme_data.items import Item
from gme_data.steps import StepContext
from gme_synthesis.candidates import Candidate, Sight
from gme_synthesis.corpus.atlas import open_atlas
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.plan import Assumptions, Plan, make_plan, measured
from gme_synthesis.encoders import load_encoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.quality import _is_gold, judge_filter, judge_writer, measure
from gme_synthesis.records import Reject
from gme_synthesis.steps.generation import GenerationConfig
from gme_synthesis.steps.picture_score import PictureFilter
from gme_synthesis.value import write_set
from gme_synthesis.value_config import TrainingSetConfig
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig
from gme_training.step import restrict

PAPER = SynthesisConfig(generation=GenerationConfig(path="flux"))


def planned(passages: int = 1_000_000, share: float = 0.02, **given: object) -> Plan:
    config = SynthesisConfig(generation=GenerationConfig(path="flux", share=share) if share else None)
    return make_plan(config, passages, Assumptions.model_validate(given), {})


def test_the_plan_counts_what_it_says() -> None:
    plan = planned(dollars_per_gpu_hour=2.0)
    loads = {load.step: load for load in plan.loads}
    assert loads["question"].seen == 1_000_000
    assert loads["consistency"].seen == 970_000
    assert loads["question"].tokens_out == 35_000_000
    assert plan.gpu_hours == pytest.approx(sum(load.gpu_hours for load in plan.loads), abs=0.1)
    assert plan.dollars == pytest.approx(2 * plan.gpu_hours, rel=1e-3)
    assert plan.paper_gpu_hours == pytest.approx(600 / 1.102, abs=0.1)
    assert plan.pictures > 5 * plan.questions


def test_the_plan_scales_and_follows_its_assumptions() -> None:
    small, large = planned(10_000), planned(1_000_000)
    assert large.gpu_hours == pytest.approx(100 * small.gpu_hours, rel=0.05)
    assert planned(share=1.0).gpu_hours > 10 * planned(share=0).gpu_hours
    assert planned(decoded_per_second=700).gpu_hours < large.gpu_hours
    assert planned(shared_prefix=False).gpu_hours > large.gpu_hours
    sampled = make_plan(PAPER.model_copy(update={"classifier": PAPER.classifier.model_copy(update={"sample": 1000})}),
                        1_000_000, Assumptions(), {})  # fmt: skip
    assert sampled.questions < 1000 < sampled.passages


def test_an_earlier_funnel_replaces_the_assumed_shares(tmp_path: Path) -> None:
    steps = [{"step": "question", "seen": 200, "kept": 20, "rejected": {}}]
    (tmp_path / "funnel.json").write_text(json.dumps({"steps": steps}))
    kept = measured(tmp_path / "funnel.json")
    assert kept == {"question": 0.1}
    assert make_plan(PAPER, 1000, Assumptions(), kept).questions < 100
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(FoundryError, match="no funnel"):
        measured(tmp_path / "broken.json")


def test_the_plan_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["synthesize", "--plan", "--passages", "1000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passages"] == 1000
    assert run(["synthesize", "--plan", "--passages", "1000000"]) == 0
    assert "1,000,000 passages give about" in capsys.readouterr().out
    for mistake, said in {
        "--passages=0": "at least one",
        "--drawn-share=2": "share",
        "--passage-chars=0": "chars",
    }.items():
        assert run(["synthesize", "--plan", mistake]) == 2
        assert said in capsys.readouterr().err


def test_rules_are_good_and_the_filter_tells_right_from_wrong(small_atlas: Path, tmp_path: Path) -> None:
    quality = measure(SynthesisConfig(consistency_top_k=5), small_atlas, tmp_path, sample=40, split="train")
    assert quality.writer.answerable > 0.9
    assert quality.writer.gold_answers == 1
    assert quality.writer.leaked == 0
    assert quality.writer.usable > 0.8
    assert quality.filter.filter_recall > 0.9
    assert quality.filter.filter_precision > 0.8


def test_an_answer_is_gold_by_its_words() -> None:
    passage = Candidate("p", "", facts={"capital": "Oslo", "area": "385,207 km2"})
    right, longer, part = (_is_gold(replace(passage, answer=said)) for said in ("Oslo", "Oslo in Norway", "s"))
    assert (right, longer, part) == (True, True, False)


class Bad:
    """A writer that leaks every name, and says the wrong answer half of the time."""

    name, reads_hints = "bad", True

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        for number, request in enumerate(requests):
            passage = request.inputs.get("passage", "")
            words = passage.split()
            name = request.hints["title"]
            said = {"question": f"What of {name} {' '.join(words[2:3])} is it?", "answer": " ".join(words[-1:])}
            if not words:
                said = {"entity": name, "question": f"{request.inputs['question']} In this country, {name}?"}
            elif number % 2:
                said["answer"] = "nowhere to be found"
            on_completion(number, Completion(json.dumps(said)))


def test_a_bad_writer_is_told_from_a_good_one(small_atlas: Path) -> None:
    pool = list(open_atlas(small_atlas).passages())
    encoder = load_encoder("minilm")
    bad = judge_writer(pool[:40], pool, LLMClient(Bad(), None, attempts=1), encoder, 20)
    good = judge_writer(pool[:40], pool, LLMClient(RuleWriter(), None, attempts=1), encoder, 20)
    assert bad.answerable <= 0.5 < good.answerable
    assert bad.leaked == 1
    assert bad.usable == 0 < good.usable
    assert bad.refused["question: answer-not-in-passage"] >= 20
    assert good.openings > bad.openings
    assert judge_filter(pool[:40], pool, encoder, len(pool)).filter_precision == pytest.approx(0.5)


def test_a_set_has_what_was_brought_along_or_what_was_written(tmp_path: Path) -> None:
    given = [
        Example(str(n), "T->T", source, "i", Item(f"q{n}"), Item("p"), (), "g", "b", None, "CC0-1.0", "train")
        for n, source in enumerate(("place-question", "flag-question", "flag"))
    ]
    write_examples(tmp_path / "given" / "train", given)
    write_images(tmp_path / "given" / "images", [])
    for config, sources in (
        (TrainingSetConfig(brought_along=True, written=False), ["flag"]),
        (TrainingSetConfig(brought_along=False, written=True), ["place-question", "flag-question"]),
    ):
        context = StepContext(tmp_path / str(config.written), "key", tmp_path)
        write_set(config, {"synthetic": tmp_path / "given"}, context)
        assert [one.source for one in read_examples(context.staging / "train")] == sources
        assert len(ImageStore([context.staging / "images"])) == 0


def test_a_stage_is_restricted_to_the_sources_that_there_are() -> None:
    shares = (SourceShare(source="place-question"), SourceShare(source="flag"))
    stage = TrainingConfig(phases=(PhaseConfig(name="m", steps=1, mixture=shares),))
    assert restrict(stage, {"flag"}).phases[0].mixture == shares[1:]
    with pytest.raises(FoundryError, match="'m' has no source left"):
        restrict(stage, {"other"})


class ByName:
    """Scores the places that it knows."""

    asked = 0

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(pictures)
        return np.array([0.9 if "Norway" in text else -0.1 for text in texts], np.float32)


def test_the_champion_refuses_flags_that_look_wrong_and_is_asked_once() -> None:
    scorer = ByName()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8))
    judge = PictureFilter(lambda _: noise, scorer, min_score=0.0)
    drafts = [
        Candidate(f"{name}-p", "", fact=f"{name}-f", entity=name, portrait_caption=f"The flag of {name}.",
                  sights=(Sight(f"{name}-t", "search"), Sight(f"{name}-o", "search")))
        for name in ("Norway", "The Gambia")
    ]  # fmt: skip
    for _ in range(2):
        kept, refused = judge.run(drafts)
        assert isinstance(kept, Candidate)
        assert [sight.score for sight in kept.sights] == [0.9, 0.9]
        assert refused == Reject("picture-filter", "low-score", "The Gambia-f/0", "The Gambia")
    assert scorer.asked == 4


@pytest.mark.slow
def test_what_data_is_worth_is_measured_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--config", str(Path(__file__).parents[1] / "flows" / "small.yaml"), "--workspace", str(tmp_path)]
    own = ["--config", str(Path(__file__).parents[2] / "examples" / "own-corpus" / "own.yaml"), *small[2:]]
    study = ["corpus", "value", "--pipeline", small[1], *own]
    assert run([*study, "--dry-run", "--json"]) == 0, capsys.readouterr().err
    assert {state["state"] for state in json.loads(capsys.readouterr().out)} == {"run"}
    assert run([*study, "--json"]) == 0, capsys.readouterr().err
    rows = {row["variant"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["none", "template", "synthetic", "both"]
    count = {name: row["examples"] for name, row in rows.items()}
    assert count["none"] < count["synthetic"] < count["both"]
    assert count["both"] - count["synthetic"] == count["template"] - count["none"] > 0
    assert all(set(row["types"]) == {"T->IT", "IT->T", "IT->I", "IT->IT"} for row in rows.values())
    assert all(0 <= row["mean"] <= 1 for row in rows.values())
