"""Whether the ranks of a stage run on this machine's GPUs or on its CPU: one rule, for our launcher and for others.

Knows numbers of ranks and GPUs; neither stages nor models.
"""

from __future__ import annotations

import os
from typing import Literal

Device = Literal["cpu", "cuda"]
"""A torch device type."""


def choose_device(ranks: int, gpus: int) -> Device:
    """Returns ``cuda`` if each of the `ranks` on this machine can have a GPU for itself, else ``cpu`` for all of them.

    NCCL refuses two ranks on one GPU, and ranks on CPU and GPU share no backend.
    """
    return "cuda" if ranks <= gpus else "cpu"


def count_gpus() -> int:
    """Returns the number of GPUs that torch can use in this process."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def local_ranks() -> int:
    """Returns how many ranks a launcher started on this machine."""
    # torchrun sets LOCAL_WORLD_SIZE, deepspeed LOCAL_SIZE.
    sizes = (os.environ.get(name) for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE"))
    return int(next((size for size in sizes if size), "1"))


def rank_device() -> Device:
    """Returns the device of this rank: `choose_device` of the ranks and GPUs of its machine."""
    return choose_device(local_ranks(), count_gpus())


def explain_cpu(ranks: int, gpus: int) -> str | None:
    """Returns why a machine's GPUs are not used, and what would use them; None if they are used or there are none."""
    if not gpus or choose_device(ranks, gpus) == "cuda":
        return None
    count, them = ("1 GPU", "it") if gpus == 1 else (f"{gpus} GPUs", "them")
    return f"{ranks} ranks and {count}: the stage runs on the CPU; with ranks: {gpus} it would use {them}"
