"""The step `starter`: stage 0 in, the small file and the model that comes back from it out."""

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
_ANY_SEED = 0  # nothing of a fresh model that a seed decides is left in the starter


def shrink(config: ShrinkConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Write what stage 0 changed, and the model that a fresh one becomes by it."""
    trained = Embedder.load(inputs["model"])
    path = context.staging / SHRUNK
    missed = write_starter(trained.model.qwen, Embedder.fresh(config.model, _ANY_SEED).model.qwen, path, config.rank)
    model = Embedder.fresh(config.model, _ANY_SEED)
    apply_starter(model.model.qwen, sha256_file(path), path)
    model.save(context.staging)
    return {"bytes": path.stat().st_size, "missed_share": round(missed, 6)}
