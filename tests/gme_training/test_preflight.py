"""Data that does not fit a stage is told before any rank starts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.examples import write_examples
from gme_data.steps import StepContext
from gme_training.config import PhaseConfig, SourceShare
from gme_training.step import train


def refused(world: dict[str, Path], folder: Path, config, message: str) -> None:
    """Training is refused with `message`, and no rank left a word."""
    for name in ("staging", "log"):
        (folder / name).mkdir(exist_ok=True)
    with pytest.raises(FoundryError, match=message):
        train(config, world, StepContext(folder / "staging", "key", folder / "log"))
    assert not list((folder / "log").iterdir())


def phases(**share: object) -> tuple[PhaseConfig, ...]:
    chosen = SourceShare.model_validate({"source": "question", "batch_size": 8, **share})
    return (PhaseConfig(name="mix", steps=1, mixture=(chosen,)),)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"source": "questions"}, "no examples of source 'questions'"),
        ({"task_type": "T->I"}, "no examples of source 'question' and task type 'T->I'"),
        ({"num_negatives": 4}, "phases.mix.mixture: no example of source 'question' has hard negatives"),
        ({"only_with_negatives": True}, "no example of source 'question' has hard negatives"),
        ({"batch_size": 1}, "has 2 items, too few for 3 ranks"),
    ],
    ids=["source", "task type", "negatives", "only with negatives", "ranks"],
)
def test_a_mixture_that_the_data_can_not_give(share, message, small_config, world, tmp_path: Path):
    refused(world, tmp_path, small_config(phases=phases(**share), ranks=3), message)


def test_a_share_of_a_start_that_is_none(small_config, world, tmp_path: Path):
    refused(world, tmp_path, small_config(phases=phases(), start_share=0.5), "start_share: 0.5 of the weights at the")


def test_a_picture_that_is_not_there(small_config, world, examples, tmp_path: Path):
    bad = replace(examples[0], query=replace(examples[0].query, image="0" * 64))
    write_examples(tmp_path / "synthetic" / "train", [*examples[1:], bad])
    message = f"Example '{bad.id}' of source '{bad.source}' has a picture that no picture shard holds"
    refused({**world, "synthetic": tmp_path / "synthetic"}, tmp_path, small_config(phases=phases()), message)


def test_shards_that_are_not_there(small_config, world, tmp_path: Path):
    refused({**world, "synthetic": tmp_path}, tmp_path, small_config(phases=phases()), "No examples shards in")
    shutil.copytree(world["synthetic"], tmp_path / "synthetic")
    refused({"corpus": tmp_path, "synthetic": world["synthetic"]}, tmp_path, small_config(phases=phases()), "No images")
