"""Configurations of the three steps: evaluate, baselines, report. Defaults are those of the tiny run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gme_data.items import TaskType
from gme_data.settings import Frozen
from gme_embedder.config import ModelConfig

REPORTED = ("hit_rate_at_1", "hit_rate_at_5", "hit_rate_at_10", "ndcg_at_5", "ndcg_at_10", "mrr_at_10")
"""Metrics of every task, beside its headline metric."""


class ScoringConfig(Frozen):
    """How any system is scored; the model and its baselines share one, or their scores would not compare."""

    split: Literal["dev", "test"] = "test"
    """Which tasks. Choices are made on dev; test is for the report."""
    tasks: tuple[str, ...] = ()
    """Names of tasks; empty means all."""
    depth: int = Field(100, ge=10)
    """Documents retrieved for each query."""
    kept: int = Field(10, ge=1)
    """Documents of each query kept in the run files."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seeds the bootstrap and the shuffled control."""


class EvaluationConfig(Frozen):
    """The step `evaluate`."""

    scoring: ScoringConfig = ScoringConfig()
    """How the model is scored."""
    device: str = "cpu"
    """Where the model runs."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the computation. bfloat16 takes half the time and is how training computes; where a processor has
    none, both compute in float32."""
    batch_tokens: int = Field(4096, ge=64)
    """Token budget of an encoding batch."""
    shuffled_control: tuple[TaskType, ...] = ("IT->T",)
    """Task types that are scored once more with the pictures of their queries exchanged between entities: what is left
    of the score does not come from the pictures."""


class HeadsConfig(Frozen):
    """Heads on frozen encoders. Rates and lengths were chosen on the dev part."""

    sources: tuple[str, ...] = ()
    """Sources of training examples that they learn from; empty means all between single pictures and single texts."""
    dimension: int = Field(256, ge=1)
    """Numbers of a vector."""
    pixels: int = Field(112, ge=32)
    """Side in pixels of what EfficientNet sees."""
    steps: int = Field(300, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(256, ge=2)
    """Examples of a step, which are each other's negatives."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of AdamW."""
    weight_decay: float = Field(0.1, ge=0)
    """Of AdamW."""
    temperature: float = Field(0.1, gt=0)
    """Of the loss."""
    seed: int = 0
    """Draws the map and the batches."""


class BaselineConfig(Frozen):
    """The step `baselines`."""

    scoring: ScoringConfig = ScoringConfig()
    """How the baselines are scored."""
    systems: tuple[Literal["random", "untrained", "bm25", "minilm", "pixels", "efficientnet", "heads"], ...] = (
        "random",
        "untrained",
        "bm25",
        "minilm",
        "pixels",
        "efficientnet",
        "heads",
    )
    """Which baselines, in the order of the table."""
    model: ModelConfig = ModelConfig()
    """The architecture of the untrained model."""
    starter: ModelConfig | None = None
    """What training starts from, as a row `starter`, if that is more than the untrained model; None leaves it out."""
    seed: int = 0
    """Seeds the vision tower of the untrained model."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the untrained model and of MiniLM; the same as in evaluation, or the scores would not compare."""
    batch_tokens: int = Field(4096, ge=64)
    """Token budget of an encoding batch of the untrained model."""
    pixels: int = Field(21, ge=4)
    """Side in pixels of the thumbnails that the raw-pixel baseline compares."""
    efficientnet_pixels: int = Field(112, ge=32)
    """Side in pixels of what the frozen EfficientNet sees."""
    heads: HeadsConfig = HeadsConfig()
    """Trained heads on the frozen encoders."""


class ReportConfig(Frozen):
    """The step `report`."""

    title: str = "GME Foundry"
    """Head of the page."""
    command: str = "make pipeline"
    """What to type to get this page again."""
    hits: int = Field(2, ge=0)
    """Retrieval examples with a relevant document first, per task type."""
    misses: int = Field(2, ge=0)
    """Retrieval examples with no relevant document among the first ten, per task type."""
    shown: int = Field(5, ge=1, le=10)
    """Documents shown for each example."""
    seed: int = 0
    """Draws the examples."""
