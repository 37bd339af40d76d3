"""Checkpoints for going on after a kill: written whole, checked before use, never half believed.

DeepSpeed's own ``latest`` file is written before all ranks are done, and without it a run silently starts over, so it
is not used. A checkpoint counts once its manifest is there, which is written last, after every rank has said that its
files are. Knows engines and files; not what is trained.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.structured import StructureError
from gme_training.checkpoint_files import MANIFEST, ResumePoint, damage, points_in, read_manifest, write_manifest
from gme_training.disk_space import explained

POINTER = "newest"
CARRIED = "carried.safetensors"
log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run in one folder.

    Args:
        folder: Where they are.
        keep: How many are kept.
        ranks: Number of processes; a checkpoint of another number is refused.
    """

    def __init__(self, folder: Path, *, keep: int, ranks: int) -> None:
        self._folder, self._keep, self._ranks = folder, keep, ranks

    def save(self, engine: Any, point: ResumePoint, carried: dict[str, torch.Tensor]) -> None:  # noqa: ANN401
        """Write a checkpoint; every rank calls it.

        Args:
            engine: Its trained parameters and optimizer are saved.
            point: How far the run is.
            carried: Weights that an earlier phase trained and the engine holds frozen.

        Raises:
            FoundryError: It could not be written whole; its files are gone again, those of older ones untouched.
        """
        folder = self._folder / point.tag
        try:
            with explained(folder):
                self._write(engine, folder, point, carried)
        except FoundryError:
            _give_back(folder)
            raise
        dist.barrier()

    def _write(self, engine: Any, folder: Path, point: ResumePoint, carried: dict[str, torch.Tensor]) -> None:  # noqa: ANN401
        if dist.get_rank() == 0:
            # A run goes on from the newest that is whole, so what is here already was never finished, or is damaged.
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        engine.save_checkpoint(str(self._folder), tag=point.tag, save_latest=False, exclude_frozen_parameters=True)
        if dist.get_rank() == 0:
            save_file({name: tensor.detach().contiguous() for name, tensor in carried.items()}, folder / CARRIED)
            self._seal(folder, point, engine.module)

    def newest(self, report: Callable[[str], None] = log.warning) -> ResumePoint | None:
        """The newest checkpoint that is whole; None before the first was finished.

        Args:
            report: Told of each newer one that is passed over, and why.

        Raises:
            FoundryError: There were checkpoints, but none can be used, or they are of another number of ranks: starting
                over is for the user to decide.
        """
        for point in points_in(self._folder):
            problem = self._problem(self._folder / point.tag)
            if problem is None:
                return point
            report(f"checkpoint {point.tag} can't be used: {problem}; trying the one before")
        if (self._folder / POINTER).exists():
            raise FoundryError(
                f"None of the checkpoints in {self._folder} can be used; see the warnings in the rank's log.",
                hint="Delete that folder to train this stage from its beginning.",
            )
        return None

    def _problem(self, folder: Path) -> str | None:
        """Why a checkpoint can't be used; None if it can."""
        try:
            manifest = read_manifest(folder)
        except FileNotFoundError:
            return "it was never finished"
        except StructureError as error:
            return f"its manifest is damaged: {error.reason}"
        if manifest.ranks != self._ranks:
            raise FoundryError(
                f"{folder} was made by {manifest.ranks} rank(s); this run has {self._ranks}. Optimizer states "
                "are divided among ranks, and in-batch negatives depend on their number.",
                hint=f"Go on with ranks: {manifest.ranks}, or delete {self._folder} to begin anew.",
            )
        return damage(folder, manifest)

    def load(self, engine: Any, point: ResumePoint, model: nn.Module) -> None:  # noqa: ANN401
        """Bring engine and model to `point`; every rank calls it.

        Raises:
            FoundryError: The checkpoint is of another set of parameters.
        """
        folder = self._folder / point.tag
        if list(read_manifest(folder).trained) != _trained(engine.module):
            raise FoundryError(
                f"{folder} holds other parameters than this stage trains.",
                hint="Delete it to train from the beginning.",
            )
        with torch.serialization.safe_globals(_safe_classes()):
            found, _ = engine.load_checkpoint(str(self._folder), tag=point.tag, load_module_strict=False)
        if found is None:
            raise FoundryError(f"DeepSpeed could not load {folder}.", hint="Delete it to train from the beginning.")
        model.load_state_dict(load_file(folder / CARRIED), strict=False)

    def _seal(self, folder: Path, point: ResumePoint, module: nn.Module) -> None:
        """Say that a checkpoint is whole; then those go that it replaces, and what it overtook."""
        write_manifest(folder, point, self._ranks, _trained(module))
        atomic_write(self._folder / POINTER, point.tag.encode())
        points = points_in(self._folder)
        # One that is further than the run is damaged: it was passed over when the run went on, and must push out none.
        sealed = [one for one in points if one <= point and (self._folder / one.tag / MANIFEST).exists()]
        for old in set(points) - set(sealed[: self._keep]):
            shutil.rmtree(self._folder / old.tag)


def _give_back(folder: Path) -> None:
    """Remove a checkpoint that could not be finished: a full disk must have room again for the error to be written."""
    for path in folder.rglob("*"):
        with suppress(OSError):
            os.truncate(path, 0)  # torch holds its file open as long as its error is known
    shutil.rmtree(folder, ignore_errors=True)


def _trained(module: nn.Module) -> list[str]:
    return sorted(name for name, parameter in module.named_parameters() if parameter.requires_grad)


def _safe_classes() -> list[Any]:
    """What DeepSpeed pickles besides tensors and plain containers."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address, set]
