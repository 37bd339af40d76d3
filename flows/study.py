"""A study: variants of one recipe, each over several seeds, scored on one split; a table with mean and spread.

Variants share the data of the workspace and differ in training. Each run has a folder of its own, so a study that was
killed goes on where it was, and one that gets another variant runs that one alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Literal

from pydantic import Field

from flows.apart import run_apart
from flows.chain import run_in_order
from flows.chains import study_chain
from flows.config import LONGEST_NAME, NAME, PipelineConfig, load_pipeline
from gme_data.scores import TaskScore, read_systems
from gme_data.settings import Frozen

VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+=-]*$", max_length=LONGEST_NAME)]
"""Names the folder of a run."""
_METRIC = "hit_rate_at_10"


class StudyConfig(Frozen):
    """What a file in ``configs/studies/`` says."""

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    """Names the folder and the table."""
    base: Path
    """The pipeline file that is varied."""
    split: Literal["dev", "test"] = "dev"
    """Which tasks judge. Choices are made on dev; test is for what was chosen."""
    seeds: tuple[int, ...] = Field((17, 18, 19), min_length=1)
    """Of stage 1; stage 2 has the next."""
    variants: Mapping[VariantName, tuple[str, ...]] = Field(default={"base": ()}, min_length=1)
    """Name -> overrides of the pipeline file, as of ``--set``."""


@dataclass(frozen=True, slots=True)
class Run:
    """One variant with one seed: its scores by task, and how long training and all took, in seconds."""

    variant: str
    seed: int
    tasks: Mapping[str, TaskScore]
    seconds: float


def study(config: StudyConfig, workspace: Path) -> tuple[Run, ...]:
    """Run what is not done yet.

    Raises:
        FoundryError: A bad override, or what a failing step says; the steps before it stay done.
    """
    recipes = [
        (variant, seed, _recipe(config, overrides, seed))
        for variant, overrides in config.variants.items()
        for seed in config.seeds
    ]
    return tuple(_run(config.name, variant, seed, recipe, workspace) for variant, seed, recipe in recipes)


def _recipe(config: StudyConfig, overrides: Sequence[str], seed: int) -> PipelineConfig:
    seeds = [f"stage_1.seed={seed}", f"stage_2.seed={seed + 1}", f"evaluation.scoring.split={config.split}"]
    return load_pipeline(config.base, [*overrides, *seeds])


def _run(study_name: str, variant: str, seed: int, recipe: PipelineConfig, workspace: Path) -> Run:
    chain = study_chain(recipe, f"runs/studies/{study_name}/{variant}-{seed}")
    made = run_in_order(chain, workspace, label=f"{variant}-{seed}", run=run_apart)
    scores = read_systems(made["evaluate"].folder)[0]  # the others see a part of each item
    seconds = sum(made[step.name].manifest.seconds for step in chain if step.role != "dataset" or step.alone)
    return Run(variant, seed, scores.by_name, seconds)


def table(runs: Sequence[Run]) -> str:
    """Markdown: a row per task, a column per variant, mean and standard deviation over the seeds of R@10."""
    variants = list(dict.fromkeys(run.variant for run in runs))
    seeds = len({run.seed for run in runs})
    lines = [
        f"R@10 over {seeds} seeds: mean ± standard deviation.\n",
        "| type | task | " + " | ".join(variants) + " |",
        "|---|---|" + "---|" * len(variants),
    ]
    return "\n".join([*lines, *_rows(runs, variants), ""])


def _rows(runs: Sequence[Run], variants: Sequence[str]) -> Iterator[str]:
    by_variant = {variant: [run for run in runs if run.variant == variant] for variant in variants}
    for name, task in runs[0].tasks.items():
        cells = [_cell([run.tasks[name].scores[_METRIC] for run in by_variant[variant]]) for variant in variants]
        yield f"| {task.task_type} | {name} | " + " | ".join(cells) + " |"
    minutes = [_cell([run.seconds / 60 for run in by_variant[variant]], digits=1) for variant in variants]
    yield "| | minutes of training and evaluation | " + " | ".join(minutes) + " |"


def _cell(values: Sequence[float], digits: int = 3) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {spread:.{digits}f}"
