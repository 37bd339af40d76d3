"""The step `starter`: it writes the small file of stage 0, and the model that is restored from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gme_data.digests import sha256_file
from gme_data.steps import StepContext
from gme_embedder.embedder import Embedder
from gme_embedder.starter.config import ShrinkConfig
from gme_embedder.starter.weights import apply_starter, write_starter

SHRUNK = "starter.safetensors"
"""Name of the small file in the output, beside the model."""
_ANY_SEED = 0  # the starter replaces all that a seed decides in a fresh model


def shrink(config: ShrinkConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Writes what stage 0 changed, and the fresh model with these changes applied."""
    trained = Embedder.load(inputs["model"])
    path = context.staging / SHRUNK
    missed = write_starter(trained.model.qwen, Embedder.fresh(config.model, _ANY_SEED).model.qwen, path, config.rank)
    model = Embedder.fresh(config.model, _ANY_SEED)
    apply_starter(model.model.qwen, sha256_file(path), path)
    model.save(context.staging)
    return {"bytes": path.stat().st_size, "missed_share": round(missed, 6)}
