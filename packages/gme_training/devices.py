"""Whether the ranks of a stage run on this machine's GPUs or on its CPU: one rule, for our own launcher and for others.

Knows numbers of ranks and GPUs; neither stages nor models.
"""

from __future__ import annotations

import os
from typing import Literal

Device = Literal["cpu", "cuda"]


def choose_device(ranks: int, gpus: int) -> Device:
    """``cuda`` if each of the `ranks` on this machine can have one of its `gpus` for itself, else ``cpu`` for all.

    NCCL refuses two ranks on one GPU, and ranks of two kinds could not meet at all.
    """
    return "cuda" if ranks <= gpus else "cpu"


def count_gpus() -> int:
    """GPUs that torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def local_ranks() -> int:
    """How many ranks a launcher started on this machine: torchrun says LOCAL_WORLD_SIZE, deepspeed LOCAL_SIZE."""
    sizes = (os.environ.get(name) for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE"))
    return int(next((size for size in sizes if size), "1"))


def rank_device() -> Device:
    """Where this rank runs: what `choose_device` says of the ranks and GPUs of its machine."""
    return choose_device(local_ranks(), count_gpus())


def explain_cpu(ranks: int, gpus: int) -> str | None:
    """Why a machine's GPUs are not used, and what would use them; None if they are used, or if there are none."""
    if not gpus or choose_device(ranks, gpus) == "cuda":
        return None
    found, them = ("1 GPU", "it") if gpus == 1 else (f"{gpus} GPUs", "them")
    return f"{ranks} ranks and {found}: the stage runs on the CPU; with ranks: {gpus} it would use {them}"
