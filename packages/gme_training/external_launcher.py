"""Being one of the ranks that another launcher started, such as torchrun or deepspeed.

Rank 0 does what a single process would do and, when it comes to training, tells the others the job; the others wait for
it. Knows the process group; not what leads to a job.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch.distributed as dist

from gme_data.errors import FoundryError
from gme_training.engine import connect, disconnect
from gme_training.job import Job, read_job


def lead(job: Job, path: Path) -> None:
    """Train `job`, written at `path`, with the ranks that `follow`.

    Raises:
        FoundryError: The launcher started another number of ranks than the stage asks for.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != job.config.ranks:
        raise FoundryError(
            f"The launcher started {started} ranks, but the stage has ranks: {job.config.ranks}.",
            hint=f"Start {job.config.ranks}, or set ranks to {started}: it is a part of the recipe.",
        )
    _tell(str(path))
    _train(job)


def dismiss() -> None:
    """Let the ranks that `follow` go, whether or not a job was given to them."""
    if not dist.is_initialized():
        _tell(None)
    disconnect()


def follow() -> None:
    """Wait for the job of rank 0 and train it; return at once if there is none."""
    path = _tell(None)
    if path:
        _train(read_job(Path(path)))
    disconnect()


def _tell(path: str | None) -> str | None:
    """What rank 0 says, on every rank."""
    connect()
    said = [path]
    dist.broadcast_object_list(said)
    return said[0]


def _train(job: Job) -> None:
    from gme_training.trainer import Trainer

    Trainer(job).run()
