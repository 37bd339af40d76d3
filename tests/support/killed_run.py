"""One rank that dies where told: ``python -m support.killed_run WORLD FOLDER [seal:N | step:N]``.

``seal:N`` dies in the middle of the Nth checkpoint: its files are there, its manifest is not. ``step:N`` dies before
its Nth step.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gme_embedder.config import ModelConfig, TowerConfig
from gme_training.checkpoints import Checkpoints
from gme_training.config import GradientCacheConfig, LoraConfig, PhaseConfig, SourceShare, TrainingConfig
from gme_training.engine import join_process_group
from gme_training.job import TrainingJob
from gme_training.trainer import Trainer

CONFIG = TrainingConfig(
    model=ModelConfig(text_layers=1, tower=TowerConfig(depth=1, width=64, heads=2)),
    phases=(
        PhaseConfig(
            name="tower",
            objective="tower",
            steps=4,
            text_learning_rate=0,
            mixture=(SourceShare(source="shape", batch_size=8, augment=0.5),),
        ),
        PhaseConfig(name="mix", steps=10, mixture=(SourceShare(source="question", batch_size=24, group_size=4),)),
    ),
    lora=LoraConfig(rank=4, dropout=0.2),
    gradient_cache=GradientCacheConfig(micro_batch_tokens=200, retained_mib=1),
    checkpoint_every=3,
    ranks=1,
    autocast=False,
)
KILLED = 137


def die_at(what: str, number: int) -> None:
    calls = 0
    owner, name = {"seal": (Checkpoints, "_complete"), "step": (Trainer, "_train_step")}[what]
    original = getattr(owner, name)

    def deadly(self, *args):
        nonlocal calls
        calls += 1
        if calls == number:
            os._exit(KILLED)
        return original(self, *args)

    setattr(owner, name, deadly)


def main(world: Path, folder: Path, deaths: list[str]) -> None:
    for death in deaths:
        what, number = death.split(":")
        die_at(what, int(number))
    join_process_group()
    images = (world / "corpus" / "images",)
    Trainer(TrainingJob(CONFIG, (world / "synthetic" / "train",), images, None, folder, folder)).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
