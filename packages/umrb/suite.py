"""A model on a suite: task after task, only what is missing, each written down as it is done.

Processes that are given the same folder share the work: encoding chunk by chunk, scoring task by task. A task with
defects is refused unless told otherwise, and its result then says so. Knows no model in particular and no table.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from filelock import FileLock, Timeout
from mteb.models.model_meta import ModelMeta
from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.progress import Progress
from gme_data.settings import Frozen
from umrb.cards import EXAMPLES
from umrb.config import ScoringConfig
from umrb.examples import write_examples, write_sample
from umrb.loading import Loaded, disk_datasets, load_unit, units
from umrb.mteb_data import instruction_of
from umrb.registry import Dataset, choose, select
from umrb.result_files import MTEB_METRICS, TaskRecord, read_result, result_path, versions, write_meta, write_result
from umrb.runner import summarise, write_outcome
from umrb.sides import DIGEST
from umrb.systems import DenseSystem
from umrb.vectors import VectorStore

_log = logging.getLogger(__name__)

VECTORS, DIGESTS = "vectors", "digests"
"""Folders of an output that all suites and models share."""


class SuiteConfig(Frozen):
    """What is scored, from where, and how."""

    suite: str = "umrb"
    """Name of a suite, see `umrb.registry`."""
    datasets: tuple[str, ...] = ()
    """Some of its datasets, by id or name; empty means all."""
    data: Path | None = None
    """Folder that `gme umrb fetch` filled; None leaves it to mteb to find the data."""
    tasks: Path | None = None
    """A folder of tasks in the shape of Atlas' tasks, to be scored instead of a suite."""
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
    def label(self) -> str:
        """Name of what is scored: the suite, or the folder of tasks."""
        return self.tasks.resolve().name if self.tasks else self.suite

    @property
    def home(self) -> Path:
        """Results of one suite; a selection of a suite shares its own."""
        return self.output / self.label.removesuffix("-partial")

    @property
    def report_name(self) -> str:
        """Folder of the report, beside the results; a selection has one of its own."""
        return "report" if self.label == self.home.name else f"report-{self.label}"

    @property
    def scoring(self) -> ScoringConfig:
        """As the runner takes it."""
        return ScoringConfig(depth=self.depth, kept=self.kept, resamples=self.resamples, seed=self.seed)

    def chosen(self) -> tuple[Dataset, ...]:
        """The datasets. Raises `FoundryError` for unknown names."""
        if self.tasks:
            return select(str(self.tasks), disk_datasets(self.tasks), self.datasets)
        return choose(self.suite, self.datasets)


def kept_contents(config: SuiteConfig, encoder: str) -> dict[str, tuple[int, int]]:
    """Queries and documents of each task whose vectors an encoder has in the store; of tasks that were loaded once."""
    store, found = VectorStore(config.output / VECTORS), {}
    for dataset, task in units(config.chosen()):
        known = []
        for side, instruction in (("query", instruction_of(dataset)), ("document", None)):
            files = sorted((config.output / DIGESTS).glob(f"{task}-*-{dataset.split}-{side}-*.npy"))
            digests = np.load(files[-1], allow_pickle=False) if files else np.zeros(0, DIGEST)
            missing = len(store.space(encoder, instruction).missing(digests))
            known.append(len(np.unique(digests)) - missing)
        if any(known):
            found[task] = (known[0], known[1])
    return found


MakeSystem: TypeAlias = Callable[[Loaded], DenseSystem]
"""The system that scores a task; a model of mteb is told which task it is."""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What a call did.

    Attributes:
        folder: Of the model's results.
        records: Of all tasks that have a result now.
        scored: Tasks scored by this call.
        refused: Tasks that integrity refused, with the reasons.
        elsewhere: Tasks that another process was at.
    """

    folder: Path
    records: tuple[TaskRecord, ...]
    scored: tuple[str, ...]
    refused: dict[str, tuple[str, ...]]
    elsewhere: tuple[str, ...]


def run_suite(config: SuiteConfig, meta: ModelMeta, make: MakeSystem) -> SuiteRun:
    """Score a model.

    Args:
        config: See the class.
        meta: Names the model as mteb does.
        make: Makes the system for each task; encoders and stores may be shared.

    Raises:
        FoundryError: An unknown dataset, data that can't be read, a result that is there with ``overwrite="never"``, a
            model that returns what is no vector. What was scored before stays.
    """
    todo = list(units(config.chosen()))
    paths = {name: result_path(config.home, meta, name) for _, name in todo}
    there = [name for name, path in paths.items() if path.exists()]
    if there and config.overwrite == "never":
        raise FoundryError(f"Results are there: {', '.join(there[:3])}.", hint="Give --overwrite only-missing.")
    work = _Work(config, meta, make)
    with Progress(f"score {meta.name}", len(todo), "tasks") as progress:
        for dataset, name in todo:
            if config.overwrite == "always" or not paths[name].exists():
                work.attempt(dataset, name, paths[name])
            progress.advance(note=name)
    records = [record for path in paths.values() if (record := read_result(path)) is not None]
    folder = result_path(config.home, meta, todo[0][1]).parent
    return SuiteRun(folder, tuple(records), tuple(work.scored), work.refused, tuple(work.elsewhere))


class _Work:
    """Scores tasks and remembers what became of them."""

    def __init__(self, config: SuiteConfig, meta: ModelMeta, make: MakeSystem) -> None:
        self._config, self._meta, self._make = config, meta, make
        self.scored: list[str] = []
        self.elsewhere: list[str] = []
        self.refused: dict[str, tuple[str, ...]] = {}

    def attempt(self, dataset: Dataset, name: str, path: Path) -> None:
        """Score one task, unless integrity or another process is against it."""
        config = self._config
        started = time.monotonic()
        data = config.tasks or config.data
        loaded = load_unit(dataset, name, data, frames=config.frames, cache=config.output / DIGESTS)
        if loaded.defects and not config.allow_defects:
            self.refused[name] = loaded.defects
            _log.warning("%s is refused: %s", name, "; ".join(loaded.defects))
            return
        system = self._make(loaded)
        encoded = system.prepare([loaded.task])  # every process takes its share, also of a task that another scores
        with ExitStack() as stack:
            lock = FileLock(path.with_suffix(".lock"))
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                self.elsewhere.append(name)
                return
            if path.exists() and config.overwrite != "always":
                return
            self._score(dataset, loaded, system, path, encoded, started)
            self.scored.append(name)

    def _score(
        self, dataset: Dataset, loaded: Loaded, system: DenseSystem, path: Path, encoded: int, started: float
    ) -> None:
        config, task = self._config, loaded.task
        metrics = list(dict.fromkeys([dataset.metric, *MTEB_METRICS]))
        outcome = system.outcome(task, metrics, min(config.depth, len(task.docs)))
        folder = path.parent
        write_meta(folder, self._meta)
        write_outcome(folder, "", task, outcome, config.kept)  # ``runs/`` and ``queries/`` of this model
        write_examples(folder / EXAMPLES, task, outcome, config.seed)
        write_sample(folder / EXAMPLES, system, task, config.seed)
        record = TaskRecord(
            suite=config.home.name,
            dataset=dataset.id,
            model=str(self._meta.name),
            revision=str(self._meta.revision),
            score=summarise(task, outcome.metrics, config.scoring),
            prompt=task.card.instruction,
            data_revision=loaded.revision,
            source=loaded.source,
            defects=loaded.defects,
            encoded=encoded,
            seconds=round(time.monotonic() - started, 3),
            versions=versions(),
        )
        write_result(path, loaded.mteb, record)
