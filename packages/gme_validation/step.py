"""The step `validate`: every dataset against its suites; a failure stops the chain and leaves the rows that failed."""

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
from gme_validation.pictures import look_at_pictures, picture_suite
from gme_validation.runner import run_suites
from gme_validation.suites import Suite
from gme_validation.tables import (
    Owners,
    Task,
    Training,
    find_held_out,
    find_owners,
    read_corpus,
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
from gme_validation.verdict import refuse, write_verdict

REFUSED = "refused"
"""Folder in the step's log folder that keeps verdict, rows and Data Docs of a failed validation."""


def validate(config: AtlasValidationConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Judge the inputs `corpus`, an Atlas, and `synthetic`; see `judge`."""
    return judge(atlas_suites(config, inputs["corpus"], inputs["synthetic"]), config, context)


def validate_files(config: ValidationConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Judge the inputs `corpus`, an imported one, and `synthetic`; see `judge`."""
    return judge(files_suites(config, inputs["corpus"], inputs["synthetic"]), config, context)


def validate_pairs(config: ValidationConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Judge the input `synthetic`, imported pairs; see `judge`."""
    return judge(pairs_suites(config, inputs["synthetic"]), config, context)


def judge(suites: Sequence[Suite], config: ValidationConfig, context: StepContext) -> Counts:
    """Run the suites; write ``verdict.json``, ``docs/`` and ``failures/``.

    Raises:
        FoundryError: Something expected does not hold; names suite, expectation and the first rows that failed.
    """
    for leftover in ("docs", "failures"):  # pages of a killed run would stand among those of this one
        shutil.rmtree(context.staging / leftover, ignore_errors=True)
    judged = run_suites(suites, context.staging / "docs", config.failed_rows)
    write_verdict(context.staging, judged)
    failures = [failure for one in judged for failure in one.failures]
    if failures:
        # The staging folder is never published after a failure; what a person needs to see is moved out of it.
        report = context.log_dir / REFUSED
        _move(context.staging, report)
        raise refuse(failures, report)
    return {
        "suites": len(judged),
        "expectations": sum(one.evaluated for one in judged),
        "rows": sum(one.rows for one in judged),
    }


def atlas_suites(config: AtlasValidationConfig, corpus_folder: Path, synthetic: Path) -> Sequence[Suite]:
    """All suites over Atlas: corpus, pictures, training set, funnel, every task, contamination."""
    corpus = read_corpus(corpus_folder / "corpus")
    looks = look_at_pictures(corpus_folder / "images")
    pictures = frozenset(looks["id"])
    owners = find_owners(corpus)
    training = read_training(synthetic)
    examples = training.examples
    tasks = read_tasks(corpus_folder / "tasks")
    return [
        *corpus_suites(corpus, pictures, config),
        picture_suite(looks, config),
        examples_suite(training, owners, pictures, config, TASK_TYPES),
        mix_suite(examples, config),
        *funnel_suites(synthetic, len(examples) + len(training.blank), config),
        *(suite for task in tasks for suite in _atlas_task(task, owners, pictures, config)),
        *contamination_suites(name_mask(corpus), examples, tasks, config),
    ]


def files_suites(config: ValidationConfig, corpus_folder: Path, synthetic: Path) -> Sequence[Suite]:
    """All suites over a corpus of one's own: passages, captions, and the same for what was made of them.

    A dev pool may show test entities here: it is all that was imported.
    """
    looks = look_at_pictures(synthetic / "images")
    pictures = frozenset(looks["id"])
    training = read_training(synthetic)
    examples = training.examples
    tasks = read_tasks(synthetic / "tasks", _splits_held_out(synthetic / "tasks"))
    owners = find_held_out(tasks, examples)
    made = sum(read_splits(synthetic).values()) + len(training.blank)
    return [
        *imported_suites(corpus_folder),
        *([picture_suite(looks, config)] if len(looks) else []),  # of texts alone no task has a picture
        examples_suite(training, owners, pictures, config),
        *funnel_suites(synthetic, made, config),
        *held_out_suites(tasks, training, owners, pictures, config),
    ]


def pairs_suites(config: ValidationConfig, pairs: Path) -> Sequence[Suite]:
    """All suites over imported pairs: pictures, examples, held-out tasks, contamination."""
    looks = look_at_pictures(pairs / "images")
    pictures = frozenset(looks["id"])
    training = read_training(pairs)
    tasks = read_tasks(pairs / "tasks", _splits_held_out(pairs / "tasks"))
    owners = find_held_out(tasks, training.examples)
    return [
        *([picture_suite(looks, config)] if len(looks) else []),
        examples_suite(training, owners, pictures, config),
        *held_out_suites(tasks, training, owners, pictures, config),
    ]


def held_out_suites(
    tasks: Sequence[Task], training: Training, owners: Owners, pictures: frozenset[str], config: ValidationConfig
) -> list[Suite]:
    """Suites over tasks that were held out of one's own data, and whether they were trained on after all."""
    of_tasks = [
        suite for task in tasks for suite in task_suites(task, owners, pictures, config, _asked_of(task), SPLITS)
    ]
    return [*of_tasks, *contamination_suites(words, training.examples, tasks, config)]


def _atlas_task(task: Task, owners: Owners, pictures: frozenset[str], config: AtlasValidationConfig) -> Sequence[Suite]:
    # A dev pool must not show a test entity: recipes are chosen on dev.
    pool = SPLITS[:2] if task.card.split == "dev" else SPLITS
    return task_suites(task, owners, pictures, config, _asked_of(task), pool)


def _asked_of(task: Task) -> str:
    """The split of the entities that a task asks about: where queries alone are held out, entities are trained on."""
    return "train" if task.card.subset == "seen" else task.card.split


def _splits_held_out(tasks: Path) -> list[str]:
    """The splits that there are tasks of; a small corpus may have none for dev.

    Raises:
        FoundryError: There is none for test, so nothing could judge a model.
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
