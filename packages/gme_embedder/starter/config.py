"""What the step `starter` may be told."""

from __future__ import annotations

from pydantic import Field

from gme_data.settings import Frozen
from gme_embedder.config import ModelConfig


class ShrinkConfig(Frozen):
    """What is kept of stage 0."""

    model: ModelConfig = ModelConfig()
    """What stage 0 started from."""
    rank: int = Field(64, ge=1)
    """Of the changes of matrices; that of the adapters, and nothing is lost but half of their digits."""
