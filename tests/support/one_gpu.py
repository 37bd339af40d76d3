"""A rank that counts one GPU, though the CPU build of torch could use none: ``python -m support.one_gpu``."""

from __future__ import annotations

import torch
import torch.distributed as dist

from gme_training.config import PhaseConfig, SourceShare, TrainingConfig
from gme_training.engine import deepspeed_config, join_process_group, leave_process_group

torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1


def main() -> None:
    join_process_group()
    from deepspeed.accelerator import get_accelerator

    assert dist.get_backend() == "gloo"
    assert get_accelerator().device_name() == "cpu"
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == dist.get_world_size() == 2
    phase = PhaseConfig(name="mix", steps=1, mixture=(SourceShare(source="shape"),))
    assert not deepspeed_config(TrainingConfig(phases=(phase,)))["zero_optimization"]["overlap_comm"]
    leave_process_group()


if __name__ == "__main__":
    main()
