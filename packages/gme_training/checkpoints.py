"""Checkpoints for going on after a kill: written whole, checked before use, never half believed.

DeepSpeed's own ``latest`` file is written before all ranks are done, and without it a run silently starts over, so it
is not used. A checkpoint counts once its manifest is there, which is written last, after every rank has said that its
files are. Knows engines and files; not what is trained.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_training.room import explained

MANIFEST = "MANIFEST.json"
POINTER = "newest"
CARRIED = "carried.safetensors"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """How far a checkpoint got: `step` steps of phase `phase` are done, both counted from 0."""

    phase: int
    step: int

    @property
    def tag(self) -> str:
        """Name of its folder; sorts by age."""
        return f"phase{self.phase:02d}-step{self.step:06d}"


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
        engine.save_checkpoint(str(self._folder), tag=point.tag, save_latest=False, exclude_frozen_parameters=True)
        if dist.get_rank() == 0:
            save_file({name: tensor.detach().contiguous() for name, tensor in carried.items()}, folder / CARRIED)
            self._seal(folder, point, engine.module)

    def newest(self) -> ResumePoint | None:
        """The newest checkpoint that is whole; None before the first was finished.

        Raises:
            FoundryError: There were checkpoints, but none can be used, or they are of another number of ranks: starting
                over is for the user to decide.
        """
        for folder in sorted(self._folder.glob("phase*-step*"), reverse=True):
            manifest = _read_manifest(folder)
            if manifest is None:
                log.warning("checkpoint %s was never finished; ignored", folder.name)
                continue
            if manifest["ranks"] != self._ranks:
                raise FoundryError(
                    f"{folder} was made by {manifest['ranks']} rank(s); this run has {self._ranks}. Optimizer states "
                    "are divided among ranks, and in-batch negatives depend on their number.",
                    hint=f"Go on with ranks: {manifest['ranks']}, or delete {self._folder} to begin anew.",
                )
            problem = self._problem(folder, manifest)
            if problem is None:
                return ResumePoint(manifest["point"]["phase"], manifest["point"]["step"])
            log.warning("checkpoint %s can't be used: %s; trying the one before", folder.name, problem)
        if (self._folder / POINTER).exists():
            raise FoundryError(
                f"None of the checkpoints in {self._folder} can be used; see the warnings in the rank's log.",
                hint="Delete that folder to train this stage from its beginning.",
            )
        return None

    def load(self, engine: Any, point: ResumePoint, model: nn.Module) -> None:  # noqa: ANN401
        """Bring engine and model to `point`; every rank calls it.

        Raises:
            FoundryError: The checkpoint is of another set of parameters.
        """
        folder = self._folder / point.tag
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["trained"] != _trained(engine.module):
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
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
        manifest = {
            "point": asdict(point),
            "ranks": self._ranks,
            "trained": _trained(module),
            "files": {p.relative_to(folder).as_posix(): [p.stat().st_size, sha256_file(p)] for p in files},
        }
        atomic_write(folder / MANIFEST, json.dumps(manifest).encode())
        atomic_write(self._folder / POINTER, point.tag.encode())
        sealed = [one for one in sorted(self._folder.glob("phase*-step*"), reverse=True) if (one / MANIFEST).exists()]
        for old in set(self._folder.glob("phase*-step*")) - set(sealed[: self._keep]):
            shutil.rmtree(old)

    def _problem(self, folder: Path, manifest: dict[str, Any]) -> str | None:
        for name, (size, digest) in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size or sha256_file(path) != digest:
                return f"{name} is damaged or missing"
        return None


def _give_back(folder: Path) -> None:
    """Remove a checkpoint that could not be finished: a full disk must have room again for the error to be written."""
    for path in folder.rglob("*"):
        with suppress(OSError):
            os.truncate(path, 0)  # torch holds its file open as long as its error is known
    shutil.rmtree(folder, ignore_errors=True)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return found


def _trained(module: nn.Module) -> list[str]:
    return sorted(name for name, parameter in module.named_parameters() if parameter.requires_grad)


def _safe_classes() -> list[Any]:
    """What DeepSpeed pickles besides tensors and plain containers."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address, set]
