"""Training sets of the data-value comparison hold the supplied or the generated part of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.examples import Example, read_examples, write_examples
from gme_data.images import ImageStore, write_images
from gme_data.items import Item
from gme_data.steps import StepContext
from gme_synthesis.training_subset_config import TrainingSubsetConfig
from gme_synthesis.training_subsets import write_subset
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig
from gme_training.step import restrict


def test_a_subset_holds_the_supplied_or_the_generated_examples(tmp_path: Path) -> None:
    dataset = [
        Example(str(n), "T->T", source, "i", Item(f"q{n}"), Item("p"), (), "g", "b", None, "CC0-1.0", "train")
        for n, source in enumerate(("place-question", "flag-question", "flag"))
    ]
    write_examples(tmp_path / "dataset" / "train", dataset)
    write_images(tmp_path / "dataset" / "images", [])
    for config, sources in (
        (TrainingSubsetConfig(supplied=True, generated=False), ["flag"]),
        (TrainingSubsetConfig(supplied=False, generated=True), ["place-question", "flag-question"]),
    ):
        context = StepContext(tmp_path / str(config.generated), "key", tmp_path)
        write_subset(config, {"synthetic": tmp_path / "dataset"}, context)
        assert [example.source for example in read_examples(context.staging / "train")] == sources
        assert len(ImageStore([context.staging / "images"])) == 0


def test_a_stage_is_restricted_to_the_sources_that_there_are() -> None:
    shares = (SourceShare(source="place-question"), SourceShare(source="flag"))
    stage = TrainingConfig(phases=(PhaseConfig(name="m", steps=1, mixture=shares),))
    assert restrict(stage, {"flag"}).phases[0].mixture == shares[1:]
    with pytest.raises(FoundryError, match="'m' has no source left"):
        restrict(stage, {"other"})


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
