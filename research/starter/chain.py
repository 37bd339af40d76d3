"""Stage 0: makes the checkpoint that the default run starts from. Hours on two cores, once; `make starter`.

The same steps as in the pipeline, on Atlas's train part and the pictures, names and glosses of other packages. A step
that is done is not done again, and a killed one goes on where it was.
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
from research.starter.config import StarterConfig
from umrb.config import EvaluationConfig


class StageZeroConfig(Frozen):
    """What ``research/starter.yaml`` says. A section that is left out has its defaults."""

    corpus: AtlasConfig = AtlasConfig()
    """The embedded world."""
    synthesis: AtlasSynthesisConfig = AtlasSynthesisConfig()
    """Its examples."""
    extra: StarterConfig = StarterConfig()
    """Pictures, names and glosses of other packages."""
    stage_0: TrainingConfig
    """The training."""
    shrink: ShrinkConfig = ShrinkConfig()
    """What is kept of it."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Which tasks the model card has scores of."""
    note: str = ""
    """What the recipe alone does not tell of how the shipped file was made; stands in the model card."""


@dataclass(frozen=True, slots=True)
class Starter:
    """What the chain left: the extra data, the trained model, the small file with its model, and their scores."""

    extra: Outcome
    trained: Outcome
    starter: Outcome
    scores: Outcome


def make_starter(config: StageZeroConfig, workspace: Path, downloads: Path) -> Starter:
    """Run what is not done yet.

    Args:
        config: The recipe.
        workspace: Gets data, checkpoints and runs.
        downloads: Where package files of the extra data are kept.

    Raises:
        FoundryError: What the failing step says; the steps before it stay done.
    """
    extra = config.extra.model_copy(update={"downloads": downloads})
    made = run_in_order(stage_zero_chain(config.model_copy(update={"extra": extra})), workspace)
    return Starter(made["starter-data"], made["train-0"], made["starter"], made["starter-scores"])


def stage_zero_chain(config: StageZeroConfig) -> Chain:
    """The chain of stage 0: no champion judges in it, since its own model is the first of all."""
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
