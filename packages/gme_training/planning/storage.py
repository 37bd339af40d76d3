"""Bytes on disk that a stage leaves and reads: checkpoints, the model, and an estimate of its data.

Knows counts; no file is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gme_embedder.costs import Architecture
from gme_training.config import TrainingConfig
from gme_training.disk_space import checkpoint_bytes
from gme_training.planning.activations import FLOAT
from gme_training.planning.workload import Kind

_CHARACTERS = 4.3  # of a token of English text, in UTF-8
_PIXELS = 784  # of a visual token, 28 x 28
_PIXEL = 0.25  # bytes of a pixel in a JPEG of quality 85, 2 bits


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes.

    Attributes:
        checkpoint: One checkpoint for going on, the parts of all ranks together.
        checkpoints: As many as exist at once: those that are kept, and the one that is being written.
        model: The finished model, in float32.
        data: Texts and pictures that all steps draw, if none is drawn twice.
    """

    checkpoint: float
    checkpoints: float
    model: float
    data: float


def storage_of(config: TrainingConfig, shape: Architecture, trained: int, kinds: Iterable[Kind]) -> Storage:
    """What a stage needs on disk.

    Args:
        config: Checkpoints kept, stage of ZeRO.
        shape: Of the model.
        trained: Parameters; a checkpoint has no others.
        kinds: Items that the stage draws.
    """
    checkpoint = checkpoint_bytes(config, trained)
    data = sum(
        kind.items * ((kind.length - kind.picture) * _CHARACTERS + kind.picture * _PIXELS * _PIXEL) for kind in kinds
    )
    return Storage(checkpoint, (config.keep_checkpoints + 1) * checkpoint, FLOAT * shape.parameters, data)
