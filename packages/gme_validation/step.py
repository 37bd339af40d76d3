"""The step `validate`: evaluates suites over every dataset; a failure stops the chain and keeps the failing rows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES
from gme_data.steps import Counts, StepContext
from gme_validation.config import AtlasValidationConfig, ValidationConfig
from gme_validation.contamination import contamination_suites, name_mask, words
from gme_validation.corpus_suites import SPLITS, corpus_suites
from gme_validation.imported_suites import imported_suites
from gme_validation.pictures import inspect_pictures, picture_suite
from gme_validation.runner import run_suites
from gme_validation.suites import TableSuite
from gme_validation.tables import (
    EntitySplits,
    TaskFrames,
    TrainingSet,
    atlas_splits,
    imported_splits,
    read_atlas,
    read_tasks,
    read_training,
)
from gme_validation.task_suites import task_suites
from gme_validation.training_suites import (
    examples_suite,
    funnel_suites,
    mix_suite,
    read_splits,
)
from gme_validation.verdict import validation_error, write_verdict

_REPORT = "refused"
"""Folder in the step's log folder with the verdict, rows and Data Docs of a failed validation."""


def validate(config: AtlasValidationConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Validates the inputs `corpus`, an Atlas, and `synthetic`; see `run_validation`."""
    return run_validation(atlas_suites(config, inputs["corpus"], inputs["synthetic"]), config, context)


def validate_files(config: ValidationConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Validates the inputs `corpus`, an imported one, and `synthetic`; see `run_validation`."""
    return run_validation(files_suites(config, inputs["corpus"], inputs["synthetic"]), config, context)


def validate_pairs(config: ValidationConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Validates the input `synthetic`, imported pairs; see `run_validation`."""
    return run_validation(pairs_suites(config, inputs["synthetic"]), config, context)


def run_validation(suites: Sequence[TableSuite], config: ValidationConfig, context: StepContext) -> Counts:
    """Evaluates the suites, writes ``verdict.json``, ``docs/`` and ``failures/``, and returns the counts.

    Raises:
        FoundryError: An expectation fails; the message names suite, expectation and the first failing rows.
    """
    for leftover in ("docs", "failures"):  # else pages of a killed run would be published with this one
        shutil.rmtree(context.staging / leftover, ignore_errors=True)
    results = run_suites(suites, context.staging / "docs", config.failed_rows)
    write_verdict(context.staging, results)
    failures = [failure for result in results for failure in result.failures]
    if failures:
        # The staging folder of a failed step is dropped, so the report is moved out of it.
        report = context.log_dir / _REPORT
        _move(context.staging, report)
        raise validation_error(failures, report)
    return {
        "suites": len(results),
        "expectations": sum(result.evaluated for result in results),
        "rows": sum(result.rows for result in results),
    }


def atlas_suites(config: AtlasValidationConfig, corpus_folder: Path, synthetic: Path) -> Sequence[TableSuite]:
    """Returns the suites over Atlas: corpus, pictures, training set, funnel, every task, contamination."""
    atlas = read_atlas(corpus_folder / "corpus")
    pictures_frame = inspect_pictures(corpus_folder / "images")
    pictures = frozenset(pictures_frame["id"])
    splits = atlas_splits(atlas)
    training = read_training(synthetic)
    examples = training.examples
    tasks = read_tasks(corpus_folder / "tasks")
    # No test entity may be in a dev pool, since recipes are chosen on dev.
    pool_splits = {"dev": SPLITS[:2], "test": SPLITS}
    return [
        *corpus_suites(atlas, pictures, config),
        picture_suite(pictures_frame, config),
        examples_suite(training, splits, pictures, config, TASK_TYPES),
        mix_suite(examples, config),
        *funnel_suites(synthetic, len(examples) + len(training.blank), config),
        *(
            suite
            for task in tasks
            for suite in task_suites(task, splits, pictures, config, _entity_split(task), pool_splits[task.card.split])
        ),
        *contamination_suites(name_mask(atlas), examples, tasks, config),
    ]


def files_suites(config: ValidationConfig, corpus_folder: Path, synthetic: Path) -> Sequence[TableSuite]:
    """Returns the suites over an imported corpus: passages, captions, examples, tasks, contamination.

    A dev pool may have test entities here, since each pool is the imported corpus.
    """
    pictures_frame = inspect_pictures(synthetic / "images")
    pictures = frozenset(pictures_frame["id"])
    training = read_training(synthetic)
    examples = training.examples
    tasks = read_tasks(synthetic / "tasks", _splits_held_out(synthetic / "tasks"))
    splits = imported_splits(tasks, examples)
    synthesised = sum(read_splits(synthetic).values()) + len(training.blank)
    return [
        *imported_suites(corpus_folder),
        *([picture_suite(pictures_frame, config)] if len(pictures_frame) else []),  # a corpus of texts has none
        examples_suite(training, splits, pictures, config),
        *funnel_suites(synthetic, synthesised, config),
        *held_out_suites(tasks, training, splits, pictures, config),
    ]


def pairs_suites(config: ValidationConfig, pairs: Path) -> Sequence[TableSuite]:
    """Returns the suites over imported pairs: pictures, examples, held-out tasks, contamination."""
    pictures_frame = inspect_pictures(pairs / "images")
    pictures = frozenset(pictures_frame["id"])
    training = read_training(pairs)
    tasks = read_tasks(pairs / "tasks", _splits_held_out(pairs / "tasks"))
    splits = imported_splits(tasks, training.examples)
    return [
        *([picture_suite(pictures_frame, config)] if len(pictures_frame) else []),
        examples_suite(training, splits, pictures, config),
        *held_out_suites(tasks, training, splits, pictures, config),
    ]


def held_out_suites(
    tasks: Sequence[TaskFrames],
    training: TrainingSet,
    splits: EntitySplits,
    pictures: frozenset[str],
    config: ValidationConfig,
) -> list[TableSuite]:
    """Returns the suites over tasks that were held out of imported data, and those over contamination."""
    suites = [
        suite for task in tasks for suite in task_suites(task, splits, pictures, config, _entity_split(task), SPLITS)
    ]
    return [*suites, *contamination_suites(words, training.examples, tasks, config)]


def _entity_split(task: TaskFrames) -> str:
    """Returns the split of the entities of a task's queries: train where the queries alone are held out."""
    return "train" if task.card.subset == "seen" else task.card.split


def _splits_held_out(tasks: Path) -> list[str]:
    """Returns the splits that have tasks; a small corpus may have none for dev.

    Raises:
        FoundryError: There is none for test, so no model could be evaluated.
    """
    if not (tasks / "test").is_dir():
        raise FoundryError(
            f"{tasks}: no task was held out for test: too few entities, or too few questions about them.",
            hint="Raise `synthesis.test` (of pairs `corpus.test`), or bring more data.",
        )
    return [split for split in SPLITS if (tasks / split).is_dir()]


def _move(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        shutil.move(path, target / path.name)
