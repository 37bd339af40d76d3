"""The step `starter`: stage 0 in, the small file and the model that comes back from it out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from gme_data.digests import sha256_file
from gme_data.settings import Frozen
from gme_data.steps import Step, StepContext
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.starter.weights import apply_starter, write_starter

SHRUNK = "starter.safetensors"
"""Name of the small file in the output, beside the model."""
_ANY_SEED = 0  # nothing of a fresh model that a seed decides is left in the starter


class ShrinkConfig(Frozen):
    """What is kept of stage 0."""

    model: ModelConfig = ModelConfig()
    """What stage 0 started from."""
    rank: int = Field(64, ge=1)
    """Of the changes of matrices; that of the adapters, and nothing is lost but half of their digits."""


def shrink(config: ShrinkConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Write what stage 0 changed, and the model that a fresh one becomes by it."""
    trained = Embedder.load(inputs["model"])
    path = context.staging / SHRUNK
    missed = write_starter(trained.model.qwen, Embedder.fresh(config.model, _ANY_SEED).model.qwen, path, config.rank)
    model = Embedder.fresh(config.model, _ANY_SEED)
    apply_starter(model.model.qwen, sha256_file(path), path)
    model.save(context.staging)
    return {"bytes": path.stat().st_size, "missed_share": round(missed, 6)}


SHRINK = Step("starter", "checkpoints/starter", shrink)
