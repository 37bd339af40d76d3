"""The world of shapes on disk, and a short stage of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from support.ranks import free_port
from support.shapes import make_examples

from gme_data.examples import Example, write_examples
from gme_data.images import write_images
from gme_embedder.config import ModelConfig, TowerConfig
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of the training step: ``corpus`` with pictures, ``synthetic`` with examples."""
    examples, pictures = make_examples()
    folder = tmp_path_factory.mktemp("world")
    write_images(folder / "corpus" / "images", pictures)
    write_examples(folder / "synthetic" / "train", examples)
    return {"corpus": folder / "corpus", "synthetic": folder / "synthetic"}


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return make_examples()[0]


def make_config(**changes: object) -> TrainingConfig:
    """Two short phases on a model of one language layer and a one-block tower."""
    fields: dict[str, object] = {
        "model": ModelConfig(text_layers=1, tower=TowerConfig(depth=1, width=64, heads=2)),
        "phases": (
            PhaseConfig(
                name="tower",
                objective="tower",
                steps=12,
                text_learning_rate=0,
                vision_learning_rate=1e-3,
                mixture=(
                    SourceShare(source="shape", batch_size=16, weight=2, group_size=4, augment=0.5),
                    SourceShare(source="shape-name", batch_size=16, grouped=0),
                ),
            ),
            PhaseConfig(
                name="mix",
                steps=36,
                mixture=(
                    SourceShare(source="question", batch_size=16, weight=2, group_size=4),
                    SourceShare(source="shape-name", batch_size=16, group_size=4),
                ),
            ),
        ),
        "checkpoint_every": 6,
    }
    return TrainingConfig.model_validate({**fields, **changes})


@pytest.fixture(scope="session")
def small_config() -> Callable[..., TrainingConfig]:
    return make_config


@pytest.fixture(scope="session")
def rank_environment() -> Iterator[dict[str, str]]:
    """What a launcher tells its only rank. DeepSpeed joins one process group in the life of a process, so it stays."""
    launcher = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    yield {**launcher, "MASTER_PORT": str(free_port()), "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def only_rank(rank_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage of one rank trains in this process, as under torchrun: starting another takes longer than its steps."""
    for name, value in rank_environment.items():
        monkeypatch.setenv(name, value)
