"""Bytes on disk that a stage writes and reads: checkpoints, the model, and an estimate of its data.

Knows counts; reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gme_embedder.costs import Architecture
from gme_training.config import TrainingConfig
from gme_training.disk_space import checkpoint_bytes
from gme_training.planning.activations import FLOAT
from gme_training.planning.workload import ItemGroup

_CHARACTERS_PER_TOKEN = 4.3
"""Bytes in UTF-8 of a token of English text."""
_PIXELS_PER_TOKEN = 784
"""Pixels of a visual token, 28 x 28."""
_BYTES_PER_PIXEL = 0.25
"""Bytes of a pixel in a JPEG of quality 85, 2 bits."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes on disk.

    Attributes:
        checkpoint: One checkpoint, the files of all ranks together.
        checkpoints: All checkpoints that exist at once: those that are kept, and the one that is being written.
        model: The finished model, in float32.
        data: Texts and pictures of all steps, if none is sampled twice.
    """

    checkpoint: float
    checkpoints: float
    model: float
    data: float


def storage_of(
    config: TrainingConfig, architecture: Architecture, trained: int, groups: Iterable[ItemGroup]
) -> Storage:
    """Estimates what a stage needs on disk.

    Args:
        config: The stage, with the checkpoints that are kept and the ZeRO stage.
        architecture: The model.
        trained: The number of trained parameters; a checkpoint has no others.
        groups: The items that the stage samples.
    """
    checkpoint = checkpoint_bytes(config, trained)
    data = sum(
        group.items
        * (
            (group.length - group.picture) * _CHARACTERS_PER_TOKEN
            + group.picture * _PIXELS_PER_TOKEN * _BYTES_PER_PIXEL
        )
        for group in groups
    )
    return Storage(checkpoint, (config.keep_checkpoints + 1) * checkpoint, FLOAT * architecture.parameters, data)
