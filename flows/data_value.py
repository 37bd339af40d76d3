"""The effect of training data: the same model on four training sets, scored on the fused tasks (the paper's Table 4).

The set `none` has the examples that Atlas brings along and no written question; `template` adds questions by rules,
`synthetic` those that the section `synthesis` of a pipeline file has written about the same passages, and `both` adds
both. Model, mixture, steps and tasks are the same for all sets, but where a source has no examples, the others get its
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from atlas.config import AtlasConfig
from flows.chain import Chain, run_in_order
from flows.chains import ATLAS, SYNTHESIZE, train_step
from flows.config import AtlasPipeline, FilesPipeline
from flows.step_process import run_in_process
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
"""Task types with a query or document of text and image."""
_FOLDER = "runs/value"
"""Folder of all outputs, below the workspace."""


class DataValueConfig(Frozen):
    """The sections that the steps of the chain read."""

    corpus: AtlasConfig
    """The embedded world."""
    templates: AtlasSynthesisConfig
    """The synthesis of its examples by rules."""
    writing: SynthesisConfig
    """The synthesis that writes questions about its passages."""
    written_questions: TrainingSubsetConfig = TrainingSubsetConfig(supplied=False, generated=True)
    """The questions alone of what was written."""
    with_templates: TrainingSubsetConfig = TrainingSubsetConfig(supplied=True, generated=True)
    """The training set with examples by rules."""
    without_templates: TrainingSubsetConfig = TrainingSubsetConfig(supplied=True, generated=False)
    """The training set without examples by rules."""
    training: TrainingConfig
    """The stage that is trained for each variant."""
    evaluation: EvaluationConfig
    """The evaluation, with the fused tasks."""


@dataclass(frozen=True, slots=True)
class VariantScores:
    """The scores of one variant: mean over the fused task types, and by task type."""

    variant: Variant
    examples: int
    mean: float
    types: Mapping[str, float]


def data_value_chain(pipeline: AtlasPipeline, writing: FilesPipeline) -> Chain:
    """Returns the chain of all variants; they share the data of the default run.

    Args:
        pipeline: The pipeline whose stage 1 is trained.
        writing: A pipeline over passages, whose section `synthesis` says who writes and what is kept.
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
        replace(SYNTHESIZE, section="templates", uses_champion=False),
        replace(
            SYNTHESIZE, name="synthesize-own", output=f"{_FOLDER}/synthetic", section="writing", uses_champion=False
        ),
        _set("own", "written_questions", "synthesize-own"),
    )
    return Chain(config, (*shared, *(step for variant in VARIANTS for step in _variant(variant))))


def _variant(variant: Variant) -> tuple[Step, ...]:
    section = "with_templates" if variant in ("template", "both") else "without_templates"
    training_set = _set(f"set-{variant}", section, "synthesize")
    inputs = {"corpus": "corpus", "synthetic": training_set.name}
    if variant in ("synthetic", "both"):
        inputs["extra"] = "own"
    train = train_step(f"train-{variant}", "training", f"{_FOLDER}/{variant}-model", inputs)
    train = replace(train, run="gme_training.step:train_on_present", logs=f"value.train-{variant}")
    evaluated = {"corpus": "corpus", "model": train.name}
    evaluate = _step(f"evaluate-{variant}", "umrb.evaluation:run_evaluation", "evaluation", evaluated)
    return training_set, train, replace(evaluate, role="evaluation")


def _set(name: str, section: str, synthetic: str) -> Step:
    return _step(name, "gme_synthesis.training_subsets:write_subset", section, {"synthetic": synthetic})


def _step(name: str, run: str, section: str, inputs: Mapping[str, str]) -> Step:
    return Step(name, run, f"{_FOLDER}/{name}", section=section, inputs=inputs, role="dataset", logs=f"value.{name}")


def measure_data_value(chain: Chain, workspace: Path) -> list[VariantScores]:
    """Trains and scores all variants; steps that are done are not run again.

    Raises:
        FoundryError: A step raises it, or no fused task was scored.
    """
    outcomes = run_in_order(chain, workspace, run=run_in_process)
    return [_variant_scores(variant, outcomes) for variant in VARIANTS]


def _variant_scores(variant: Variant, outcomes: Mapping[str, Outcome]) -> VariantScores:
    folder = outcomes[f"evaluate-{variant}"].folder
    means = type_means(read_systems(folder)[0].tasks)  # the first system is the model itself
    fused = {name: means[name] for name in FUSED if name in means}
    if not fused:
        raise FoundryError(
            f"{folder}: no fused task was scored.", hint=f"`evaluation` must have tasks of {', '.join(FUSED)}."
        )
    sets = [outcomes[f"set-{variant}"], *([outcomes["own"]] if variant in ("synthetic", "both") else [])]
    examples = sum(int(outcome.manifest.counts["examples"]) for outcome in sets)
    return VariantScores(variant, examples, sum(fused.values()) / len(fused), fused)
