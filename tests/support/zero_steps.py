"""Five steps by every stage of ZeRO, whole and with LoRA: ``python -m support.zero_steps WORLD FOLDER STAGE...``."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import torch.distributed as dist

from gme_embedder.config import ModelConfig, TowerConfig
from gme_training.config import (
    GradientCacheConfig,
    LoraConfig,
    OptimizerConfig,
    PhaseConfig,
    SourceShare,
    TrainingConfig,
)
from gme_training.engine import join_process_group
from gme_training.job import TrainingJob
from gme_training.trainer import Trainer

KINDS = {"full": None, "lora": LoraConfig(rank=4)}
STEPS = 5


def config_of(kind: str, stage: int) -> TrainingConfig:
    """With a large epsilon: Adam's first steps are signs, which turn noise of 1e-9 into steps of the whole rate."""
    return TrainingConfig(
        model=ModelConfig(text_layers=1, tower=TowerConfig(depth=1, width=64, heads=2)),
        phases=(
            PhaseConfig(
                name="p",
                steps=STEPS,
                text_learning_rate=1e-3,
                vision_learning_rate=1e-3,
                mixture=(
                    SourceShare(source="shape-name", batch_size=12, weight=2),
                    SourceShare(source="question", batch_size=12),
                ),
            ),
        ),
        optimizer=OptimizerConfig(epsilon=1e-3),
        lora=KINDS[kind],
        zero_stage=stage,
        gradient_cache=GradientCacheConfig(micro_batch_tokens=150, retained_mib=2),
        calibration_items=0,
        autocast=False,
    )


def main(world: Path, folder: Path, stages: list[int]) -> None:
    join_process_group()
    for kind, stage in product(KINDS, stages):
        staging = folder / f"{kind}-{stage}-of-{dist.get_world_size()}"
        images = (world / "corpus" / "images",)
        Trainer(
            TrainingJob(config_of(kind, stage), (world / "synthetic" / "train",), images, None, staging, staging)
        ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(stage) for stage in sys.argv[3:]])
