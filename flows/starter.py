"""Stage 0: makes the checkpoint that the default run starts from. Hours on two cores, once; `make starter`.

The same steps as in the pipeline, on Atlas's train part and the pictures, names and glosses of other packages. A step
that is done is not done again, and a killed one goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atlas.config import AtlasConfig
from atlas.starter.config import StarterConfig
from atlas.starter.step import make_step as data_step
from flows.chain import link
from flows.console import announce
from gme_data.settings import Frozen
from gme_data.steps import Outcome, Step, execute
from gme_embedder.starter.shrink import SHRINK, ShrinkConfig
from gme_synthesis.config import SynthesisConfig
from gme_training.config import TrainingConfig
from gme_training.step import TRAIN_STAGE_0
from umrb.config import EvaluationConfig
from umrb.evaluation import run_evaluation

SCORE = Step("starter-scores", "runs/starter-evaluation", run_evaluation)


class StageZeroConfig(Frozen):
    """What ``configs/starter.yaml`` says. A section that is left out has its defaults."""

    corpus: AtlasConfig = AtlasConfig()
    """The embedded world."""
    synthesis: SynthesisConfig = SynthesisConfig()
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

    def run(step: Step, part: Frozen, **inputs: Outcome) -> Outcome:
        with announce(step.name) as line:
            outcome = execute(step, part, inputs, workspace)
            line.finish(outcome)
        return outcome

    corpus = run(link("corpus").load(), config.corpus)
    synthetic = run(link("synthesize").load(), config.synthesis, corpus=corpus)
    extra = run(data_step(downloads), config.extra, corpus=corpus)
    trained = run(TRAIN_STAGE_0, config.stage_0, corpus=corpus, synthetic=synthetic, extra=extra)
    starter = run(SHRINK, config.shrink, model=trained)
    scores = run(SCORE, config.evaluation, corpus=corpus, model=starter)
    return Starter(extra, trained, starter, scores)
