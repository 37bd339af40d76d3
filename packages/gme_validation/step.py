"""The step `validate`: every dataset against its suites; a failure stops the chain and leaves the rows that failed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gme_data.steps import Counts, Step, StepContext
from gme_validation.config import ValidationConfig
from gme_validation.contamination import contamination_suites
from gme_validation.corpus_suites import corpus_suites
from gme_validation.pictures import look_at_pictures, picture_suite
from gme_validation.runner import run_suites
from gme_validation.suites import Suite
from gme_validation.tables import find_owners, read_corpus, read_tasks, read_training
from gme_validation.task_suites import task_suites
from gme_validation.training_suites import funnel_suites, training_suites
from gme_validation.verdict import refuse, write_verdict

REFUSED = "refused"
"""Folder in the step's log folder that keeps verdict, rows and Data Docs of a failed validation."""


def validate(config: ValidationConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Judge the inputs `corpus` and `synthetic`; write ``verdict.json``, ``docs/`` and ``failures/``.

    Raises:
        FoundryError: Something expected does not hold; names suite, expectation and the first rows that failed.
    """
    for leftover in ("docs", "failures"):  # pages of a killed run would stand among those of this one
        shutil.rmtree(context.staging / leftover, ignore_errors=True)
    suites = build_suites(config, inputs["corpus"], inputs["synthetic"])
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


def build_suites(config: ValidationConfig, corpus_folder: Path, synthetic: Path) -> Sequence[Suite]:
    """All suites: corpus, pictures, training set, funnel, every task, contamination."""
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
        *training_suites(training, owners, pictures, config),
        *funnel_suites(synthetic, len(examples) + len(training.blank), config),
        *(suite for task in tasks for suite in task_suites(task, owners, pictures, config)),
        *contamination_suites(corpus, examples, tasks, config),
    ]


def _move(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        shutil.move(path, target / path.name)


VALIDATE = Step("validate", "runs/validation", validate)
