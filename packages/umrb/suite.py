"""Scores a model on one suite outside of any pipeline (`gme umrb run`); results lie where the cache of mteb looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from mteb.models.model_meta import ModelMeta
from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.locks import try_lock
from umrb.config import ScoringConfig, Suite
from umrb.data.dataset_side import load_digests
from umrb.data.loading import LoadedTask, load_suite_task
from umrb.data.mteb_data import instruction_of
from umrb.data.selection import SuiteTask, chosen_datasets
from umrb.data.sides import DIGEST
from umrb.data.task_folders import unusable_tasks
from umrb.registry import Dataset
from umrb.scoring.result_files import results_folder, write_meta
from umrb.scoring.runner import Runner, RunOptions, RunResult
from umrb.systems.base import SystemFactory
from umrb.systems.vectors import VectorStore

VECTORS, DIGESTS = "vectors", "digests"
"""Folders of an output that all suites and models share: vectors, and digests of the data's rows."""


class SuiteConfig(Suite):
    """A suite, and how a model is scored on it."""

    RENAMED: ClassVar[Mapping[str, str]] = {"kept": "run_depth"}

    suite: str = "umrb"
    """Name of a suite, see `umrb.registry`."""
    data: Path | None = None
    """Folder that `gme umrb fetch` filled; None leaves it to mteb to find the data."""
    output: Path = Path("runs/umrb")
    """Folder that gets results, run files, per-query values and vectors."""
    overwrite: Literal["only-missing", "always", "never"] = "only-missing"
    """Whether a result that exists is kept, scored again, or makes the run refuse to start."""
    allow_defects: bool = False
    """Score tasks that integrity refuses; their results say so."""
    depth: int = Field(1000, ge=100)
    """Documents retrieved for each query, as mteb does."""
    run_depth: int = Field(100, ge=1)
    """Documents of each query that the run files keep."""
    frames: int = Field(1, ge=1)
    """Frames of a video whose vectors are averaged; a single frame is the middle one, as in GME's own scores."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seeds the bootstrap and the choice of examples."""

    @property
    def home(self) -> Path:
        """Folder of the suite's results; a selection such as ``umrb-partial`` shares that of its suite."""
        return self.output / self.label.removesuffix("-partial")

    @property
    def report_name(self) -> str:
        """Name of the report's folder, beside the results; a selection has a report of its own."""
        return "report" if self.label == self.home.name else f"report-{self.label}"

    @property
    def options(self) -> RunOptions:
        """The settings in the form that the runner takes."""
        scoring = ScoringConfig(
            depth=self.depth,
            run_depth=self.run_depth,
            resamples=self.resamples,
            seed=self.seed,
            allow_defects=self.allow_defects,
        )
        # Results of this command are timed: unlike outputs of steps they need not have the same bytes at every run.
        return RunOptions(scoring, as_mteb=True, overwrite=self.overwrite, timed=True)

    def chosen(self) -> tuple[Dataset, ...]:
        """List the datasets; raises `FoundryError` for unknown names."""
        return chosen_datasets(self)

    def suite_tasks(self) -> list[SuiteTask]:
        """List the tasks of the datasets, filed under the suite that a selection is part of."""
        data = self.tasks or self.data
        return [SuiteTask(self.home.name, dataset, task, data) for dataset in self.chosen() for task in dataset.tasks]

    def unusable(self) -> dict[str, str]:
        """Return why tasks of a folder are missing from `chosen`: what is wrong with their card, by folder name."""
        return unusable_tasks(self.tasks) if self.tasks and not self.datasets else {}


def cached_contents(config: SuiteConfig, encoder: str) -> dict[str, tuple[int, int]]:
    """Count the contents whose vectors an encoder has in the store already.

    Returns:
        Distinct queries and documents by task, for the tasks that have any. Tasks that were never loaded have no
        digests in the output and count as having none.
    """
    store, cached = VectorStore(config.output / VECTORS), {}
    for task in config.suite_tasks():
        counts = []
        for side, instruction in (("query", instruction_of(task.dataset)), ("document", None)):
            files = sorted((config.output / DIGESTS).glob(f"{task.name}-*-{task.dataset.split}-{side}-*.npy"))
            loaded = load_digests(files[-1]) if files else None
            digests = np.zeros(0, DIGEST) if loaded is None else loaded
            missing = len(store.space(encoder, instruction).missing(digests))
            counts.append(len(np.unique(digests)) - missing)
        if any(counts):
            cached[task.name] = (counts[0], counts[1])
    return cached


def run_suite(config: SuiteConfig, meta: ModelMeta, make: SystemFactory) -> RunResult:
    """Score a model. Where several processes share the work, each returns when all of it is done.

    Args:
        config: See the class.
        meta: The model's metadata as mteb has them; name and revision file its results.
        make: Makes the system for each task; encoders and stores may be shared.

    Raises:
        FoundryError: A dataset is unknown, there is a result and ``overwrite="never"``, or a model returns what is no
            vector. Results that were written before remain.
    """
    tasks = config.suite_tasks()
    folder = results_folder(config.home, meta)
    folder.mkdir(parents=True, exist_ok=True)
    # Processes that share the run write this file too.
    with try_lock(folder / ".meta.lock", wait=True):
        write_meta(folder, meta)

    def load(task: SuiteTask) -> LoadedTask:
        return load_suite_task(task.dataset, task.name, task.data, frames=config.frames, cache=config.output / DIGESTS)

    if meta.name is None or meta.revision is None:
        raise FoundryError("A model without name and revision can't be filed.", hint="Give it both.")
    return Runner(folder, meta.name, meta.revision, config.options, load).run(tasks, make, config.unusable())
