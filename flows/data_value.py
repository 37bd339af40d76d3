"""What data is worth: the same model on four training sets, scored on the fused tasks (the paper's Table 4).

`none` has what Atlas brings along and nothing written; `template` adds questions by rules, `synthetic` those that the
section `synthesis` of a file over own corpora has written on the same passages, `both` both. Model, mixture, steps and
tasks are the same for all; only, where a source has no examples, the others get its steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from atlas.config import AtlasConfig
from flows.apart import run_apart
from flows.chain import Chain, run_in_order
from flows.chains import ATLAS, SYNTHESIZE, train_step
from flows.config import AtlasPipeline, FilesPipeline
from gme_data.errors import FoundryError
from gme_data.scores import read_systems, type_means
from gme_data.settings import Frozen
from gme_data.steps import Outcome, Step
from gme_synthesis.corpus.atlas_config import AtlasSynthesisConfig
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.training_subset_config import TrainingSubsetConfig
from gme_training.config import TrainingConfig
from umrb.config import EvaluationConfig

Variant = Literal["none", "template", "synthetic", "both"]
VARIANTS: tuple[Variant, ...] = ("none", "template", "synthetic", "both")
FUSED = ("T->IT", "IT->T", "IT->I", "IT->IT")
_HOME = "runs/value"


class DataValueConfig(Frozen):
    """The sections that the steps read."""

    corpus: AtlasConfig
    """The embedded world."""
    templates: AtlasSynthesisConfig
    """Its examples by rules."""
    writing: SynthesisConfig
    """How its passages are written about."""
    own: TrainingSubsetConfig = TrainingSubsetConfig(supplied=False, generated=True)
    """Of what was written so, the questions alone."""
    with_templates: TrainingSubsetConfig = TrainingSubsetConfig(supplied=True, generated=True)
    """The set with examples by rules."""
    without_templates: TrainingSubsetConfig = TrainingSubsetConfig(supplied=True, generated=False)
    """The set without them."""
    training: TrainingConfig
    """The stage that is trained four times."""
    evaluation: EvaluationConfig
    """The tasks."""


@dataclass(frozen=True, slots=True)
class Worth:
    """The scores of one variant: mean of the fused tasks, and by task type."""

    variant: Variant
    examples: int
    mean: float
    types: Mapping[str, float]


def data_value_chain(pipeline: AtlasPipeline, writing: FilesPipeline) -> Chain:
    """All variants, beside the data of the default run.

    Args:
        pipeline: The pipeline whose stage 1 is trained.
        writing: A file over own corpora, whose section `synthesis` says who writes and what is kept.
    """
    config = DataValueConfig(
        corpus=pipeline.corpus,
        templates=pipeline.synthesis,
        writing=writing.synthesis,
        training=pipeline.stage_1,
        evaluation=pipeline.evaluation,
    )
    shared = (
        ATLAS,
        replace(SYNTHESIZE, section="templates", judged=False),
        replace(SYNTHESIZE, name="synthesize-own", output=f"{_HOME}/synthetic", section="writing", judged=False),
        _set("own", "own", "synthesize-own"),
    )
    return Chain(config, (*shared, *(step for variant in VARIANTS for step in _variant(variant))))


def _variant(variant: Variant) -> tuple[Step, ...]:
    section = "with_templates" if variant in ("template", "both") else "without_templates"
    chosen = _set(f"set-{variant}", section, "synthesize")
    inputs = {"corpus": "corpus", "synthetic": chosen.name}
    if variant in ("synthetic", "both"):
        inputs["extra"] = "own"
    train = train_step(f"train-{variant}", "training", f"{_HOME}/{variant}-model", inputs)
    train = replace(train, run="gme_training.step:train_on_present", logs=f"value.train-{variant}")
    scored = {"corpus": "corpus", "model": train.name}
    evaluate = _step(f"evaluate-{variant}", "umrb.evaluation:run_evaluation", "evaluation", scored)
    return chosen, train, replace(evaluate, role="evaluation")


def _set(name: str, section: str, synthetic: str) -> Step:
    return _step(name, "gme_synthesis.training_subsets:write_subset", section, {"synthetic": synthetic})


def _step(name: str, run: str, section: str, inputs: Mapping[str, str]) -> Step:
    return Step(name, run, f"{_HOME}/{name}", section=section, inputs=inputs, role="dataset", logs=f"value.{name}")


def measure_data_value(chain: Chain, workspace: Path) -> list[Worth]:
    """Train and score all variants; what is done already is not done again.

    Raises:
        FoundryError: What the failing step says, or no fused task was scored.
    """
    made = run_in_order(chain, workspace, run=run_apart)
    return [_worth(variant, made) for variant in VARIANTS]


def _worth(variant: Variant, made: Mapping[str, Outcome]) -> Worth:
    folder = made[f"evaluate-{variant}"].folder
    means = type_means(read_systems(folder)[0].tasks)
    fused = {name: means[name] for name in FUSED if name in means}
    if not fused:
        raise FoundryError(
            f"{folder}: no fused task was scored.", hint=f"`evaluation` must have tasks of {', '.join(FUSED)}."
        )
    sets = [made[f"set-{variant}"], *([made["own"]] if variant in ("synthetic", "both") else [])]
    examples = sum(int(outcome.manifest.counts["examples"]) for outcome in sets)
    return Worth(variant, examples, sum(fused.values()) / len(fused), fused)
