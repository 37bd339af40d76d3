"""Configurations of the three steps: evaluate, baselines, report. Defaults are those of the tiny run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from gme_data.errors import did_you_mean
from gme_data.items import TaskType
from gme_data.scores import HELD_OUT
from gme_data.settings import Frozen, Sealable
from gme_embedder.config import BaseConfig, ModelConfig
from umrb.registry import SUITES

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
    """Seeds the bootstrap, the examples and the shuffled control."""
    allow_defects: bool = False
    """Score tasks that integrity refuses; the report says so, and such scores do not compare."""


class Suite(Frozen):
    """Tasks that judge: those of the corpus, a folder of one's own, or a benchmark, which a file may name alone."""

    suite: str = HELD_OUT
    """``held-out``: the tasks that the corpus brings along; or the name of a benchmark, see `umrb.registry`."""
    datasets: tuple[str, ...] = ()
    """Some of its datasets, by id, task or printed name; empty means all."""
    data: Path | None = None
    """Folder that `gme umrb fetch` filled, as seen from the pipeline file; None is where it puts data by itself,
    ``data/umrb`` below the folder that the command runs in."""
    tasks: Path | None = None
    """A folder of labelled tasks, as seen from the pipeline file, instead of a named suite: each a folder in our shape
    or in BEIR's."""

    @model_validator(mode="before")
    @classmethod
    def _is_named(cls, given: Any) -> Any:  # noqa: ANN401 - what a file holds
        return {"suite": given} if isinstance(given, str) else given

    @property
    def label(self) -> str:
        """Name of what is scored: the suite, or the folder of tasks."""
        return self.tasks.resolve().name if self.tasks else self.suite

    @property
    def is_held_out(self) -> bool:
        """Whether its tasks are those of the corpus."""
        return self.tasks is None and self.suite == HELD_OUT


class SuiteSelection(Sealable):
    """What any system is judged by, the model as its baselines."""

    scoring: ScoringConfig = ScoringConfig()
    """How systems are scored."""
    suites: tuple[Suite, ...] = Field(default=(Suite(),), min_length=1)
    """Which tasks judge. Baselines that say none are judged by those of the evaluation."""

    @field_validator("suites")
    @classmethod
    def _are_known(cls, suites: tuple[Suite, ...]) -> tuple[Suite, ...]:
        known = (HELD_OUT, *SUITES)
        for suite in suites:
            if suite.tasks is None and suite.suite not in known:
                near = did_you_mean(suite.suite, known)
                raise ValueError(f"there is no suite '{suite.suite}'.{near} One of {', '.join(known)}, or `tasks:`")
        labels = [suite.label for suite in suites]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice")
        return suites

    def sealed(self) -> Self:
        """See `Sealable.sealed`; tasks of the corpus are inputs, and no files outside."""
        return self if all(suite.is_held_out for suite in self.suites) else super().sealed()

    def contents(self) -> list[Any]:
        """See `Sealable.contents`: the state of the data of every task.

        Raises:
            FoundryError: Data of a suite are not there; names the command that fetches them.
        """
        from umrb.data.selection import require_data  # who only reads a pipeline file needs no reader of benchmarks

        return [row for suite in self.suites if not suite.is_held_out for row in require_data(suite)]


class EvaluationConfig(SuiteSelection):
    """The step `evaluate`."""

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


class LinearProbeConfig(Frozen):
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


class BaselineConfig(SuiteSelection):
    """The step `baselines`."""

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
    base: BaseConfig | None = None
    """The pretrained model that training starts from, which is then what is untrained; a pipeline fills in its own."""
    device: str = "cpu"
    """Where the untrained model and the starter run."""
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
    heads: LinearProbeConfig = LinearProbeConfig()
    """Trained heads on the frozen encoders."""


class ReportConfig(Frozen):
    """The step `report`."""

    title: str = "GME Foundry"
    """Head of the page."""
    command: str = "make pipeline"
    """What to type to get this page again."""
