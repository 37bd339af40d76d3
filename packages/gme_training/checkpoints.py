"""Checkpoints from which a killed run resumes: complete or ignored, and verified before use.

DeepSpeed's own ``latest`` file is not used: it is written before all ranks are done, and without it a run silently
starts over. A checkpoint counts once it has its manifest, which is written last, after the files of every rank. Knows
engines and files; not what is trained.
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
from gme_training.checkpoint_files import (
    MANIFEST,
    ResumePoint,
    find_damage,
    read_manifest,
    resume_points,
    write_manifest,
)
from gme_training.disk_space import explain_write_errors

POINTER = "newest"
"""The file that names the newest checkpoint; it says that there has been one, even if all are damaged."""
FROZEN_WEIGHTS = "carried.safetensors"
"""The weights of a checkpoint that an earlier phase trained and that are frozen now; DeepSpeed saves only trained ones.
"""
log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run in one folder.

    Args:
        folder: The folder of the checkpoints.
        keep: The number of checkpoints that are kept.
        ranks: The number of processes; a checkpoint of another number is refused.
    """

    def __init__(self, folder: Path, *, keep: int, ranks: int) -> None:
        self._folder, self._keep, self._ranks = folder, keep, ranks

    def save(self, engine: Any, point: ResumePoint, frozen: dict[str, torch.Tensor]) -> None:  # noqa: ANN401
        """Writes a checkpoint; every rank calls it.

        Args:
            engine: Its trained parameters and optimizer states are saved.
            point: How far the run is.
            frozen: Weights that an earlier phase trained and that are frozen now.

        Raises:
            FoundryError: It could not be written completely; its files are removed, older checkpoints are untouched.
        """
        folder = self._folder / point.tag
        try:
            with explain_write_errors(folder):
                if dist.get_rank() == 0:
                    # A run resumes from the newest complete checkpoint, so one that exists here is incomplete or
                    # damaged.
                    shutil.rmtree(folder, ignore_errors=True)
                dist.barrier()
                engine.save_checkpoint(
                    str(self._folder), tag=point.tag, save_latest=False, exclude_frozen_parameters=True
                )
                if dist.get_rank() == 0:
                    tensors = {name: tensor.detach().contiguous() for name, tensor in frozen.items()}
                    save_file(tensors, folder / FROZEN_WEIGHTS)
                    self._complete(folder, point, engine.module)
        except FoundryError:
            _discard(folder)
            raise
        dist.barrier()

    def newest(self, report: Callable[[str], None] = log.warning) -> ResumePoint | None:
        """Returns the newest complete checkpoint; None if none was ever finished.

        Args:
            report: Called with a message for each newer checkpoint that can't be used.

        Raises:
            FoundryError: There were checkpoints, but none can be used, or they are of another number of ranks: starting
                over is for the user to decide.
        """
        for point in resume_points(self._folder):
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
        """Returns why a checkpoint can't be used; None if it can.

        Raises:
            FoundryError: It is of another number of ranks.
        """
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
        return find_damage(folder, manifest)

    def load(self, engine: Any, point: ResumePoint, model: nn.Module) -> None:  # noqa: ANN401
        """Loads the checkpoint of `point` into engine and model; every rank calls it.

        Raises:
            FoundryError: The checkpoint is of another set of parameters.
        """
        folder = self._folder / point.tag
        if list(read_manifest(folder).trained) != _trained(engine.module):
            raise FoundryError(
                f"{folder} holds other parameters than this stage trains.",
                hint="Delete it to train from the beginning.",
            )
        # Pickles may hold only these classes, so a checkpoint can't run code.
        with torch.serialization.safe_globals(_safe_classes()):
            # Not strict: frozen parameters are not in the checkpoint.
            loaded, _ = engine.load_checkpoint(str(self._folder), tag=point.tag, load_module_strict=False)
        if loaded is None:
            raise FoundryError(f"DeepSpeed could not load {folder}.", hint="Delete it to train from the beginning.")
        model.load_state_dict(load_file(folder / FROZEN_WEIGHTS), strict=False)

    def _complete(self, folder: Path, point: ResumePoint, module: nn.Module) -> None:
        """Writes the manifest, then removes the checkpoints that are no longer kept."""
        write_manifest(folder, point, self._ranks, _trained(module))
        atomic_write(self._folder / POINTER, point.tag.encode())
        points = resume_points(self._folder)
        # A checkpoint that is further than the run is damaged, or the run would have resumed from it: it must not count
        # among those that are kept.
        complete = [other for other in points if other <= point and (self._folder / other.tag / MANIFEST).exists()]
        for old in set(points) - set(complete[: self._keep]):
            shutil.rmtree(self._folder / old.tag)


def _discard(folder: Path) -> None:
    """Removes a checkpoint that could not be finished, so that a full disk has space for the error."""
    for path in folder.rglob("*"):
        with suppress(OSError):
            # Truncated first: torch holds its file open while the exception refers to it, and an open file keeps its
            # blocks.
            os.truncate(path, 0)
    shutil.rmtree(folder, ignore_errors=True)


def _trained(module: nn.Module) -> list[str]:
    return sorted(name for name, parameter in module.named_parameters() if parameter.requires_grad)


def _safe_classes() -> list[Any]:
    """Returns the classes that DeepSpeed pickles besides tensors and plain containers."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address, set]
