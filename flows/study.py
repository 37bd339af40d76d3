"""A study: variants of one pipeline, each with several seeds, scored on one split; a table with mean and spread.

Variants share the data of the workspace and differ in training. Each run has its own folder, so a study that was killed
is resumed, and a study that gets another variant runs only that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Literal

from pydantic import Field

from flows.chain import run_in_order
from flows.chains import study_chain
from flows.config import MAX_NAME, NAME, PipelineConfig, load_pipeline
from flows.step_process import run_in_process
from gme_data.scores import TaskScore, read_systems
from gme_data.settings import Frozen

VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+=-]*$", max_length=MAX_NAME)]
"""Name of a variant, which is part of the name of a run's folder."""
_METRIC = "hit_rate_at_10"


class StudyConfig(Frozen):
    """Configuration of a study: a file in ``configs/studies/``."""

    name: str = Field(pattern=NAME, max_length=MAX_NAME)
    """Name of the study's folder."""
    base: Path
    """The pipeline file that is varied."""
    split: Literal["dev", "test"] = "dev"
    """Split of the tasks that score. Variants are chosen on dev; test is for the chosen one."""
    seeds: tuple[int, ...] = Field((17, 18, 19), min_length=1)
    """Seeds of stage 1; stage 2 has the seed plus one."""
    variants: Mapping[VariantName, tuple[str, ...]] = Field(default={"base": ()}, min_length=1)
    """Name -> overrides of the pipeline file, as of ``--set``."""


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One variant with one seed: its scores by task, and the seconds of training and evaluation."""

    variant: str
    seed: int
    tasks: Mapping[str, TaskScore]
    seconds: float


def study(config: StudyConfig, workspace: Path) -> tuple[StudyRun, ...]:
    """Runs all variants with all seeds; steps that are done are not run again.

    Raises:
        FoundryError: An override is bad, or a step raises it; the steps before it stay done.
    """
    recipes = [
        (variant, seed, _variant_config(config, overrides, seed))
        for variant, overrides in config.variants.items()
        for seed in config.seeds
    ]
    return tuple(_run(config.name, variant, seed, recipe, workspace) for variant, seed, recipe in recipes)


def _variant_config(config: StudyConfig, overrides: Sequence[str], seed: int) -> PipelineConfig:
    # After the variant's overrides, which can't replace seed and split.
    seeds = [f"stage_1.seed={seed}", f"stage_2.seed={seed + 1}", f"evaluation.scoring.split={config.split}"]
    return load_pipeline(config.base, [*overrides, *seeds])


def _run(study_name: str, variant: str, seed: int, recipe: PipelineConfig, workspace: Path) -> StudyRun:
    chain = study_chain(recipe, f"runs/studies/{study_name}/{variant}-{seed}")
    outcomes = run_in_order(chain, workspace, label=f"{variant}-{seed}", run=run_in_process)
    scores = read_systems(outcomes["evaluate"].folder)[0]  # the other systems are the model on a part of each item
    seconds = sum(outcomes[step.name].manifest.seconds for step in chain if step.role != "dataset" or step.alone)
    return StudyRun(variant, seed, scores.by_name, seconds)


def study_table(runs: Sequence[StudyRun]) -> str:
    """Returns a Markdown table of R@10: a row per task, a column per variant, mean and deviation over seeds."""
    variants = list(dict.fromkeys(run.variant for run in runs))
    seeds = len({run.seed for run in runs})
    lines = [
        f"R@10 over {seeds} seeds: mean ± standard deviation.\n",
        "| type | task | " + " | ".join(variants) + " |",
        "|---|---|" + "---|" * len(variants),
    ]
    return "\n".join([*lines, *_rows(runs, variants), ""])


def _rows(runs: Sequence[StudyRun], variants: Sequence[str]) -> Iterator[str]:
    by_variant = {variant: [run for run in runs if run.variant == variant] for variant in variants}
    for name, task in runs[0].tasks.items():
        cells = [_cell([run.tasks[name].scores[_METRIC] for run in by_variant[variant]]) for variant in variants]
        yield f"| {task.task_type} | {name} | " + " | ".join(cells) + " |"
    minutes = [_cell([run.seconds / 60 for run in by_variant[variant]], digits=1) for variant in variants]
    yield "| | minutes of training and evaluation | " + " | ".join(minutes) + " |"


def _cell(values: Sequence[float], digits: int = 3) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {spread:.{digits}f}"
