"""The chain of stage 0, which makes the checkpoint that the default run starts from. It takes hours on two cores.

Its steps are those of the pipeline, over Atlas's train split and the pictures, names and glosses of other packages. A
step that is done isn't run again, and a killed one is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from atlas.config import AtlasConfig
from flows.chain import Chain, run_in_order
from flows.chains import ATLAS, SYNTHESIZE, train_step
from gme_data.settings import Frozen
from gme_data.steps import Outcome, Step
from gme_embedder.starter.config import ShrinkConfig
from gme_synthesis.corpus.atlas_config import AtlasSynthesisConfig
from gme_training.config import TrainingConfig
from research.starter.config import StarterDataConfig
from umrb.config import EvaluationConfig


class StageZeroConfig(Frozen):
    """The recipe ``research/starter.yaml``; a section that it leaves out has its defaults."""

    corpus: AtlasConfig = AtlasConfig()
    """The configuration of Atlas."""
    synthesis: AtlasSynthesisConfig = AtlasSynthesisConfig()
    """How examples are synthesised from Atlas."""
    extra: StarterDataConfig = StarterDataConfig()
    """The data of other packages: pictures, names and glosses."""
    stage_0: TrainingConfig
    """The training of stage 0."""
    shrink: ShrinkConfig = ShrinkConfig()
    """How the trained model is compressed to the shipped file."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """The evaluation whose scores the model card has."""
    note: str = ""
    """How the making of the shipped file differed from a run of the recipe; a paragraph of the model card."""


@dataclass(frozen=True, slots=True)
class StageZeroOutcomes:
    """The outcomes of the chain: the extra data, the trained model, the compressed model, and its scores."""

    extra: Outcome
    trained: Outcome
    starter: Outcome
    scores: Outcome


def make_starter(config: StageZeroConfig, workspace: Path, downloads: Path) -> StageZeroOutcomes:
    """Runs the steps that are not done.

    Args:
        config: The recipe.
        workspace: Folder of data, checkpoints and runs.
        downloads: Folder of the package files of the extra data.

    Raises:
        FoundryError: The error of the failing step; the steps before it stay done.
    """
    extra = config.extra.model_copy(update={"downloads": downloads})
    outcomes = run_in_order(stage_zero_chain(config.model_copy(update={"extra": extra})), workspace)
    return StageZeroOutcomes(
        outcomes["starter-data"], outcomes["train-0"], outcomes["starter"], outcomes["starter-scores"]
    )


def stage_zero_chain(config: StageZeroConfig) -> Chain:
    """Returns the chain of stage 0. No champion scores its pictures, since its model is the first of all."""
    data = {"corpus": "corpus", "synthetic": "synthesize", "extra": "starter-data"}
    return Chain(
        config,
        (
            ATLAS,
            replace(SYNTHESIZE, uses_champion=False),
            Step(
                "starter-data",
                "research.starter.step:run",
                "data/starter",
                section="extra",
                inputs={"corpus": "corpus"},
                role="dataset",
            ),
            train_step("train-0", "stage_0", "checkpoints/stage0", data),
            Step(
                "starter",
                "gme_embedder.starter.shrink:shrink",
                "checkpoints/starter",
                section="shrink",
                inputs={"model": "train-0"},
                role="model",
            ),
            Step(
                "starter-scores",
                "umrb.evaluation:run_evaluation",
                "runs/starter-evaluation",
                section="evaluation",
                inputs={"corpus": "corpus", "model": "starter"},
                role="evaluation",
            ),
        ),
    )
