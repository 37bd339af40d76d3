"""A model on one suite, outside of any pipeline: `gme umrb run`. Results lie where mteb's cache looks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from mteb.models.model_meta import ModelMeta
from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.locks import try_lock
from umrb.config import ScoringConfig, Suite
from umrb.dataset_side import load_digests
from umrb.disk import unusable_tasks
from umrb.loading import Loaded, load_unit
from umrb.mteb_data import instruction_of
from umrb.registry import Dataset
from umrb.result_files import results_folder, write_meta
from umrb.runner import MakeSystem, Runner, RunOptions, Scored
from umrb.sides import DIGEST
from umrb.units import Unit, chosen_datasets
from umrb.vectors import VectorStore

VECTORS, DIGESTS = "vectors", "digests"
"""Folders of an output that all suites and models share."""


class SuiteConfig(Suite):
    """What is scored, from where, and how."""

    suite: str = "umrb"
    """Name of a suite, see `umrb.registry`."""
    data: Path | None = None
    """Folder that `gme umrb fetch` filled; None leaves it to mteb to find the data."""
    output: Path = Path("runs/umrb")
    """Gets results, run files, per-query values and vectors."""
    overwrite: Literal["only-missing", "always", "never"] = "only-missing"
    """What to do where a result is there: keep it, score again, or refuse to run at all."""
    allow_defects: bool = False
    """Score tasks that integrity refuses; their results say so."""
    depth: int = Field(1000, ge=100)
    """Documents retrieved for each query, as mteb does."""
    kept: int = Field(100, ge=1)
    """Documents of each query kept in the run files."""
    frames: int = Field(1, ge=1)
    """Frames of a video whose vectors are averaged; one is the middle one, as GME was scored."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seeds the bootstrap and draws the examples."""

    @property
    def home(self) -> Path:
        """Results of one suite; a selection of a suite shares its own."""
        return self.output / self.label.removesuffix("-partial")

    @property
    def report_name(self) -> str:
        """Folder of the report, beside the results; a selection has one of its own."""
        return "report" if self.label == self.home.name else f"report-{self.label}"

    @property
    def options(self) -> RunOptions:
        """As the runner takes it."""
        scoring = ScoringConfig(
            depth=self.depth,
            kept=self.kept,
            resamples=self.resamples,
            seed=self.seed,
            allow_defects=self.allow_defects,
        )
        return RunOptions(scoring, as_mteb=True, overwrite=self.overwrite, timed=True)

    def chosen(self) -> tuple[Dataset, ...]:
        """The datasets. Raises `FoundryError` for unknown names."""
        return chosen_datasets(self)

    def units(self) -> list[Unit]:
        """Their tasks, filed under the suite that a selection is of."""
        where = self.tasks or self.data
        return [Unit(self.home.name, row, task, where) for row in self.chosen() for task in row.tasks]

    def unusable(self) -> dict[str, str]:
        """Tasks of a folder that are not among `chosen` for what is wrong with their card; by folder, with why."""
        return unusable_tasks(self.tasks) if self.tasks and not self.datasets else {}


def kept_contents(config: SuiteConfig, encoder: str) -> dict[str, tuple[int, int]]:
    """Queries and documents of each task whose vectors an encoder has in the store; of tasks that were loaded once."""
    store, found = VectorStore(config.output / VECTORS), {}
    for unit in config.units():
        known = []
        for side, instruction in (("query", instruction_of(unit.dataset)), ("document", None)):
            files = sorted((config.output / DIGESTS).glob(f"{unit.name}-*-{unit.dataset.split}-{side}-*.npy"))
            kept = load_digests(files[-1]) if files else None
            digests = np.zeros(0, DIGEST) if kept is None else kept
            missing = len(store.space(encoder, instruction).missing(digests))
            known.append(len(np.unique(digests)) - missing)
        if any(known):
            found[unit.name] = (known[0], known[1])
    return found


def run_suite(config: SuiteConfig, meta: ModelMeta, make: MakeSystem) -> Scored:
    """Score a model. Where several processes share the work, each returns when all of it is done.

    Args:
        config: See the class.
        meta: Names the model as mteb does.
        make: Makes the system for each task; encoders and stores may be shared.

    Raises:
        FoundryError: An unknown dataset, a result that is there with ``overwrite="never"``, a model that returns what
            is no vector. What was scored before stays.
    """
    units = config.units()
    folder = results_folder(config.home, meta)
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder / ".meta.lock", wait=True):
        write_meta(folder, meta)

    def load(unit: Unit) -> Loaded:
        return load_unit(unit.dataset, unit.name, unit.data, frames=config.frames, cache=config.output / DIGESTS)

    if meta.name is None or meta.revision is None:
        raise FoundryError("A model without name and revision can't be filed.", hint="Give it both.")
    return Runner(folder, meta.name, meta.revision, config.options, load).run(units, make, config.unusable())
