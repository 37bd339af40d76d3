"""Configurations of the three steps: evaluate, baselines, report. Defaults are those of the tiny run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from gme_data.errors import did_you_mean
from gme_data.items import TaskType
from gme_data.scores import HELD_OUT
from gme_data.settings import Frozen, Sealable
from gme_embedder.config import BaseConfig, ModelConfig
from umrb.registry import SUITES

REPORTED = ("hit_rate_at_1", "hit_rate_at_5", "hit_rate_at_10", "ndcg_at_5", "ndcg_at_10", "mrr_at_10")
"""Every task reports these metrics beside its headline metric."""


class ScoringConfig(Frozen):
    """How any system is scored. The model and its baselines share these settings, or their scores would not compare."""

    RENAMED: ClassVar[Mapping[str, str]] = {"kept": "run_depth"}

    split: Literal["dev", "test"] = "test"
    """Split of the corpus's tasks. Settings are chosen on dev; test is for the report."""
    tasks: tuple[str, ...] = ()
    """Names of tasks; empty means all."""
    depth: int = Field(100, ge=10)
    """Documents retrieved for each query."""
    run_depth: int = Field(10, ge=1)
    """Documents of each query that the run files keep."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seeds the bootstrap, the examples and the shuffled control."""
    allow_defects: bool = False
    """Score tasks that integrity refuses; the report says so, and such scores do not compare."""


class Suite(Frozen):
    """A suite of tasks: those of the corpus, a folder of labelled tasks, or a benchmark.

    A file may give the name of a suite alone instead of the fields.
    """

    suite: str = HELD_OUT
    """``held-out`` for the tasks that come with the corpus, or the name of a benchmark of `umrb.registry`."""
    datasets: tuple[str, ...] = ()
    """Some of the suite's datasets, by id, task or printed name; empty means all."""
    data: Path | None = None
    """Folder that `gme umrb fetch` filled, as seen from the pipeline file. None means its default, ``data/umrb`` below
    the folder that the command runs in."""
    tasks: Path | None = None
    """A folder of labelled tasks, as seen from the pipeline file, instead of a named suite: each a folder in our shape
    or in BEIR's."""

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_name(cls, raw: Any) -> Any:  # noqa: ANN401 - what a file holds
        return {"suite": raw} if isinstance(raw, str) else raw

    @property
    def label(self) -> str:
        """The name of the suite, or of the folder of tasks."""
        return self.tasks.resolve().name if self.tasks else self.suite

    @property
    def is_held_out(self) -> bool:
        """Whether the tasks are those that come with the corpus."""
        return self.tasks is None and self.suite == HELD_OUT


class SuiteSelection(Sealable):
    """The suites that evaluate every system, the model as well as its baselines."""

    scoring: ScoringConfig = ScoringConfig()
    """How systems are scored."""
    suites: tuple[Suite, ...] = Field(default=(Suite(),), min_length=1)
    """Suites of tasks. Baselines without suites are evaluated on those of the section `evaluation`."""

    @field_validator("suites")
    @classmethod
    def _require_known_suites(cls, suites: tuple[Suite, ...]) -> tuple[Suite, ...]:
        known = (HELD_OUT, *SUITES)
        for suite in suites:
            if suite.tasks is None and suite.suite not in known:
                near = did_you_mean(suite.suite, known)
                raise ValueError(f"there is no suite '{suite.suite}'.{near} One of {', '.join(known)}, or `tasks:`")
        # Scores and reports refer to a suite by its label alone.
        labels = [suite.label for suite in suites]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice")
        return suites

    def sealed(self) -> Self:
        """See `Sealable.sealed`."""
        # Tasks of the corpus are inputs of the step, whose key covers them already.
        return self if all(suite.is_held_out for suite in self.suites) else super().sealed()

    def contents(self) -> list[Any]:
        """Return the state of the data of every task outside of the corpus; see `Sealable.contents`.

        Raises:
            FoundryError: Data of a suite are not there; names the command that fetches them.
        """
        # Reading a pipeline file alone must not load the readers of benchmarks, which take seconds to import.
        from umrb.data.selection import require_data

        return [row for suite in self.suites if not suite.is_held_out for row in require_data(suite)]


class EvaluationConfig(SuiteSelection):
    """The step `evaluate`."""

    device: str = "cpu"
    """Device that the model runs on."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the computation. bfloat16 takes half the time and is how training computes; on a processor without
    it both compute in float32."""
    batch_tokens: int = Field(4096, ge=64)
    """Token budget of an encoding batch."""
    shuffled_control: tuple[TaskType, ...] = ("IT->T",)
    """Task types that are scored once more with the pictures of their queries exchanged between entities: the score
    that remains does not come from the pictures."""


class LinearProbeConfig(Frozen):
    """Linear probes on frozen encoders. Learning rate, weight decay and steps were chosen on the dev split."""

    sources: tuple[str, ...] = ()
    """Sources of the training examples; empty means all examples between single pictures and single texts."""
    dimension: int = Field(256, ge=1)
    """Dimension of the space that both encoders are mapped to."""
    pixels: int = Field(112, ge=32)
    """Side in pixels of the pictures that EfficientNet sees."""
    steps: int = Field(300, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(256, ge=2)
    """Examples of a step, which are each other's negatives."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(0.1, ge=0)
    """Weight decay of AdamW."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the contrastive loss."""
    seed: int = 0
    """Seeds the initial weights and the batches."""


Baseline: TypeAlias = Literal["random", "untrained", "bm25", "minilm", "pixels", "efficientnet", "linear_probes"]
"""Names of the baselines in a configuration."""


class BaselineConfig(SuiteSelection):
    """The step `baselines`."""

    RENAMED: ClassVar[Mapping[str, str]] = {"heads": "linear_probes"}

    systems: tuple[Baseline, ...] = (
        "random",
        "untrained",
        "bm25",
        "minilm",
        "pixels",
        "efficientnet",
        "linear_probes",
    )
    """Which baselines, in the order of the table."""
    model: ModelConfig = ModelConfig()
    """Architecture of the untrained model."""
    base: BaseConfig | None = None
    """Pretrained model that training starts from, and then the untrained one; a pipeline fills in its own."""
    device: str = "cpu"
    """Device that the untrained model and the starter run on."""
    starter: ModelConfig | None = None
    """Stage-0 checkpoint that training starts from, as a row `starter`; None leaves the row out."""
    seed: int = 0
    """Seeds the vision tower of the untrained model."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the untrained model and of MiniLM; it is that of the evaluation, or the scores would not compare."""
    batch_tokens: int = Field(4096, ge=64)
    """Token budget of an encoding batch of the untrained model."""
    pixels: int = Field(21, ge=4)
    """Side in pixels of the thumbnails that the raw-pixel baseline compares."""
    efficientnet_pixels: int = Field(112, ge=32)
    """Side in pixels of the pictures that the frozen EfficientNet sees."""
    linear_probes: LinearProbeConfig = LinearProbeConfig()
    """Linear probes trained on the frozen encoders."""

    @field_validator("systems", mode="before")
    @classmethod
    def _explain_renamed_baseline(cls, systems: Any) -> Any:  # noqa: ANN401 - what a file holds
        if isinstance(systems, list | tuple) and "heads" in systems:
            raise ValueError("the baseline heads is called linear_probes now")
        return systems


class ReportConfig(Frozen):
    """The step `report`."""

    title: str = "GME Foundry"
    """Title of the page."""
    command: str = "make pipeline"
    """Command that makes this page, as the page quotes it."""
