"""What data is worth: the same model on four training sets, scored on the fused tasks (the paper's Table 4).

`none` has what the corpus brings along and nothing written; `template` adds questions by rules, `synthetic` those of
`gme corpus synthesize`, `both` both. Model, mixture, steps and tasks are the same for all; only, where a source has no
examples, the others get its steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flows.chain import link, published
from flows.config import PipelineConfig
from gme_cli.own import Do
from gme_data.errors import FoundryError
from gme_data.examples import read_examples, write_examples
from gme_data.manifest import require
from gme_data.settings import Frozen
from gme_data.steps import Counts, Outcome, Step, StepContext, execute
from gme_synthesis.value import WRITTEN_SOURCES, as_default_sources
from gme_training.config import TrainingConfig
from umrb.results import SCORES, read_scores, type_means

Variant = Literal["none", "template", "synthetic", "both"]
VARIANTS: tuple[Variant, ...] = ("none", "template", "synthetic", "both")
FUSED = ("T->IT", "IT->T", "IT->I", "IT->IT")


@dataclass(frozen=True, slots=True)
class Worth:
    """The scores of one variant: mean of the fused tasks, and by task type."""

    variant: Variant
    examples: int
    mean: float
    types: Mapping[str, float]


class SetConfig(Frozen):
    """Which examples a set has."""

    templates: bool
    """Those written by rules, beside what the corpus brings along."""


class OwnSetConfig(Frozen):
    """The synthetic examples under the names of the default sources; nothing to choose."""


def study(config: PipelineConfig, synthetic: Path, workspace: Path, do: Do = execute) -> list[Worth]:
    """Train and score all variants; what is done already is not done again.

    Raises:
        FoundryError: The default corpus or a training set has not been made.
    """
    made = {"corpus": published("corpus", workspace), "default": published("synthesize", workspace)}
    own = Outcome("synthesize-corpus", synthetic, require(synthetic, "corpus synthesize"), reused=True)
    step = Step("value-own", "runs/value/own", _write_own)
    made["own"] = do(step, OwnSetConfig(), {"own": own}, workspace)
    return [_worth(variant, config, made, workspace, do) for variant in VARIANTS]


def _worth(variant: Variant, config: PipelineConfig, made: Mapping[str, Outcome], workspace: Path, do: Do) -> Worth:
    chosen = SetConfig(templates=variant in ("template", "both"))
    step = Step(f"value-set-{variant}", f"runs/value/{variant}-set", _write_set)
    inputs = {"corpus": made["corpus"], "synthetic": do(step, chosen, {"default": made["default"]}, workspace)}
    if variant in ("synthetic", "both"):
        inputs["extra"] = made["own"]
    sets = [inputs[name] for name in ("synthetic", "extra") if name in inputs]
    sources = {example.source for outcome in sets for example in read_examples(outcome.folder / "train")}
    train = replace(link("train-1").load(), name=f"value-train-{variant}", output=f"runs/value/{variant}-model")
    model = do(train, restrict(config.stage_1, sources), inputs, workspace)
    judge = replace(link("evaluate").load(), name=f"value-evaluate-{variant}", output=f"runs/value/{variant}-scores")
    scored = do(judge, config.evaluation, {"corpus": made["corpus"], "model": model}, workspace)
    means = type_means(read_scores(scored.folder / SCORES)[0].tasks)
    fused = {name: means[name] for name in FUSED if name in means}
    if not fused:
        raise FoundryError(
            f"{scored.folder}: no fused task was scored.", hint=f"`evaluation` must have tasks of {', '.join(FUSED)}."
        )
    examples = sum(int(outcome.manifest.counts["examples"]) for outcome in sets)
    return Worth(variant, examples, sum(fused.values()) / len(fused), fused)


def restrict(stage: TrainingConfig, sources: Collection[str]) -> TrainingConfig:
    """The stage with only those shares of its mixtures that have examples.

    Raises:
        FoundryError: A phase is left without any.
    """
    phases = []
    for phase in stage.phases:
        mixture = tuple(share for share in phase.mixture if share.source in sources)
        if not mixture:
            raise FoundryError(f"Phase {phase.name!r} has no source left that has examples.")
        phases.append(phase.model_copy(update={"mixture": mixture}))
    return stage.model_copy(update={"phases": tuple(phases)})


def _write_set(config: SetConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    examples = [
        example
        for example in read_examples(inputs["default"] / "train")
        if config.templates or example.source not in WRITTEN_SOURCES
    ]
    write_examples(context.staging / "train", examples)
    return {"examples": len(examples)}


def _write_own(_: OwnSetConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    examples = list(as_default_sources(read_examples(inputs["own"] / "train")))
    write_examples(context.staging / "train", examples)
    shutil.copytree(inputs["own"] / "images", context.staging / "images", dirs_exist_ok=True)
    return {"examples": len(examples)}
