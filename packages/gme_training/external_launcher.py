"""Training as one of the ranks that another launcher started, such as torchrun or deepspeed.

Rank 0 runs the whole command and, when it comes to training, broadcasts the job; the other ranks wait for it. Knows the
process group; not how a job is made.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch.distributed as dist

from gme_data.errors import FoundryError
from gme_training.engine import join_process_group, leave_process_group
from gme_training.job import TrainingJob, read_job


def train_as_rank_zero(job: TrainingJob, path: Path) -> None:
    """Trains `job`, written at `path`, with the ranks that are in `wait_and_train`.

    Raises:
        FoundryError: The launcher started another number of ranks than the stage asks for.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != job.config.ranks:
        raise FoundryError(
            f"The launcher started {started} ranks, but the stage has ranks: {job.config.ranks}.",
            hint=f"Start {job.config.ranks}, or set ranks to {started}: it is a part of the recipe.",
        )
    _broadcast_path(str(path))
    _train(job)


def wait_and_train() -> None:
    """Waits for the job of rank 0 and trains it; returns at once if rank 0 has none."""
    path = _broadcast_path(None)
    if path:
        _train(read_job(Path(path)))
    leave_process_group()


def release_waiting_ranks() -> None:
    """Ends `wait_and_train` on the other ranks, whether or not they were given a job."""
    if not dist.is_initialized():
        _broadcast_path(None)
    leave_process_group()


def _broadcast_path(path: str | None) -> str | None:
    """Returns the `path` of rank 0, on every rank."""
    join_process_group()
    paths = [path]
    dist.broadcast_object_list(paths)
    return paths[0]


def _train(job: TrainingJob) -> None:
    from gme_training.trainer import Trainer

    Trainer(job).run()
