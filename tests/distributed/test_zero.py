"""Every stage of ZeRO with the gradient cache ends with the weights of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support.ranks import run_ranks_of
from support.shapes import make_examples
from support.zero_steps import KINDS, STEPS, config_of

from gme_data.examples import write_examples
from gme_data.images import write_images
from gme_training.config import TrainingConfig

STAGES = (0, 1, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    examples, pictures = make_examples()
    write_images(folder / "world" / "corpus" / "images", pictures)
    write_examples(folder / "world" / "synthetic" / "train", examples)
    run_ranks_of("support.zero_steps", 1, str(folder / "world"), str(folder), "0")
    run_ranks_of("support.zero_steps", 2, str(folder / "world"), str(folder), *map(str, STAGES))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one for path in sorted(folder.glob("*.safetensors")) for name, one in load_file(path).items()}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_after_five_steps_equal_those_of_one_process(kind: str, stage: int, trained: Path):
    alone, shared = weights(trained / f"{kind}-0-of-1"), weights(trained / f"{kind}-{stage}-of-2")
    assert alone.keys() == shared.keys()
    moved = 0.0
    start = weights_before(kind)
    for name, one in alone.items():
        torch.testing.assert_close(shared[name], one, rtol=0, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
        if name in start:
            moved = max(moved, float((one.float() - start[name].float()).abs().max()))
    assert moved > 2e-4  # a hundred times what may differ


def weights_before(kind: str) -> dict[str, torch.Tensor]:
    from gme_embedder.embedder import Embedder

    config = config_of(kind, 0)
    return dict(Embedder.fresh(config.model, config.seed).model.qwen.state_dict())


def test_a_stage_that_can_not_be_made_right_is_refused_with_the_reason():
    fields = config_of("full", 0).model_dump()
    with pytest.raises(ValidationError, match="same number of micro-batches"):
        TrainingConfig.model_validate({**fields, "zero_stage": 3})
    assert fields["phases"][0]["steps"] == STEPS
