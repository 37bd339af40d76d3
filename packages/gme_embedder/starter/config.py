"""The configuration of the step `starter`."""

from __future__ import annotations

from pydantic import Field

from gme_data.settings import Frozen
from gme_embedder.config import ModelConfig


class ShrinkConfig(Frozen):
    """How much of stage 0 the starter keeps."""

    model: ModelConfig = ModelConfig()
    """The model that stage 0 started from."""
    rank: int = Field(64, ge=1)
    """Rank of the changes of matrices; with that of the adapters, only precision below float16 is lost."""
