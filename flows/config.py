"""One pipeline, one file: the configuration of every step, composed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from atlas.config import AtlasConfig
from gme_data.settings import Frozen, load_config
from gme_release.config import ReleaseConfig
from gme_synthesis.config import SynthesisConfig
from gme_training.config import MiningConfig, TrainingConfig
from gme_validation.config import ValidationConfig
from umrb.config import BaselineConfig, EvaluationConfig, ReportConfig

NAME = r"^[a-z0-9][a-z0-9.-]*$"
LONGEST_NAME = 100
"""With a key and a date behind it, it names folders and runs."""


class PipelineConfig(Frozen):
    """What a file in ``configs/`` says. A section that is left out has its defaults."""

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    """Names the run, its report and its records."""
    corpus: AtlasConfig = AtlasConfig()
    """The embedded world."""
    synthesis: SynthesisConfig = SynthesisConfig()
    """Passages, facts and pictures to training examples."""
    validation: ValidationConfig = ValidationConfig()
    """What must hold before anything is trained."""
    stage_1: TrainingConfig
    """Training with in-batch negatives."""
    mining: MiningConfig = MiningConfig()
    """Hard negatives, found by the model of stage 1."""
    stage_2: TrainingConfig
    """Training goes on with the hard negatives."""
    baselines: BaselineConfig = BaselineConfig()
    """What the model is compared with."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Which tasks judge the model."""
    report: ReportConfig = ReportConfig()
    """The page that people read."""
    release: ReleaseConfig = ReleaseConfig()
    """Where versions, runs and models are recorded, and the gate."""


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a pipeline file; `overrides` as in `load_config`.

    Raises:
        FoundryError: Missing file, bad YAML, unknown or bad field (with a suggestion).
    """
    return load_config(path, PipelineConfig, overrides)
