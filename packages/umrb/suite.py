"""A model on a suite: task after task, only what is missing, each written down as it is done.

Processes that are given the same folder share the work: encoding chunk by chunk, scoring task by task. A task with
defects is refused unless told otherwise, and its result then says so. Knows no model in particular and no table.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from mteb.models.model_meta import ModelMeta
from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.locks import taken
from gme_data.progress import Progress
from gme_data.settings import Frozen
from umrb.abstention import nauc_of
from umrb.cards import EXAMPLES
from umrb.config import ScoringConfig
from umrb.dataset_side import load_digests
from umrb.examples import write_examples, write_sample
from umrb.loading import Loaded, data_version, disk_datasets, load_unit, units, unusable_tasks
from umrb.mteb_data import instruction_of
from umrb.registry import Dataset, choose, select
from umrb.result_files import MTEB_METRICS, TaskRecord, read_result, result_path, versions, write_meta, write_result
from umrb.runner import summarise, write_outcome
from umrb.sharing import Tally, joined
from umrb.sides import DIGEST
from umrb.systems import BadItemsError, VectorSystem
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

    def unusable(self) -> dict[str, str]:
        """Tasks of a folder that are not among `chosen` for what is wrong with their card; by folder, with why."""
        return unusable_tasks(self.tasks) if self.tasks and not self.datasets else {}


def kept_contents(config: SuiteConfig, encoder: str) -> dict[str, tuple[int, int]]:
    """Queries and documents of each task whose vectors an encoder has in the store; of tasks that were loaded once."""
    store, found = VectorStore(config.output / VECTORS), {}
    for dataset, task in units(config.chosen()):
        known = []
        for side, instruction in (("query", instruction_of(dataset)), ("document", None)):
            files = sorted((config.output / DIGESTS).glob(f"{task}-*-{dataset.split}-{side}-*.npy"))
            kept = load_digests(files[-1]) if files else None
            digests = np.zeros(0, DIGEST) if kept is None else kept
            missing = len(store.space(encoder, instruction).missing(digests))
            known.append(len(np.unique(digests)) - missing)
        if any(known):
            found[task] = (known[0], known[1])
    return found


MakeSystem: TypeAlias = Callable[[Loaded], VectorSystem]
"""The system that scores a task; a model of mteb is told which task it is."""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What a call did.

    Attributes:
        folder: Of the model's results.
        records: Of all tasks that have a result now, but those refused.
        scored: Tasks scored by this call; other processes may have scored others meanwhile.
        refused: Tasks that can't be scored as they are, with the reasons.
    """

    folder: Path
    records: tuple[TaskRecord, ...]
    scored: tuple[str, ...]
    refused: dict[str, tuple[str, ...]]


def run_suite(config: SuiteConfig, meta: ModelMeta, make: MakeSystem) -> SuiteRun:
    """Score a model. Where several processes share the work, each returns when all of it is done.

    Args:
        config: See the class.
        meta: Names the model as mteb does.
        make: Makes the system for each task; encoders and stores may be shared.

    Raises:
        FoundryError: An unknown dataset, a result that is there with ``overwrite="never"``, a model that returns what
            is no vector. What was scored before stays.
    """
    todo = list(units(config.chosen()))
    paths = {name: result_path(config.home, meta, name) for _, name in todo}
    folder = next(iter(paths.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    with joined(folder) as began:
        there = [name for name, path in paths.items() if path.exists() and not _is_of_run(path, began)]
        if there and config.overwrite == "never":
            raise FoundryError(f"Results are there: {', '.join(there[:3])}.", hint="Give --overwrite only-missing.")
        with taken(folder / ".meta.lock", wait=True):
            write_meta(folder, meta)
        work = _Work(config, meta, make, began)
        for name, reason in config.unusable().items():
            work.refuse(name, (reason,))
        with Progress(f"score {meta.name}", len(todo), "tasks") as progress:
            for unit in todo:
                work.attempt(*unit)
                progress.advance(note=unit[1])
            work.await_others()
    current = [path for name, path in paths.items() if name not in work.refused]
    records = [record for path in current if (record := read_result(path)) is not None]
    return SuiteRun(folder, tuple(records), tuple(work.scored), work.refused)


def _is_of_run(path: Path, began: float) -> bool:
    """Whether this run, or a process that shares it, wrote a file. If dates can not tell: no; it is scored again."""
    return path.stat().st_mtime > began


class _Work:
    """Scores tasks and remembers what became of them."""

    def __init__(self, config: SuiteConfig, meta: ModelMeta, make: MakeSystem, began: float) -> None:
        self._config, self._meta, self._make, self._began = config, meta, make, began
        self._elsewhere: list[tuple[Dataset, str]] = []
        self.scored: list[str] = []
        self.refused: dict[str, tuple[str, ...]] = {}

    def attempt(self, dataset: Dataset, name: str) -> None:
        """Score one task, unless it is done, or its data or another process are against it."""
        tally = Tally(self._beside(name, "encoded"))
        started = time.monotonic()
        try:
            version = data_version(dataset, name, self._data)
            if self._is_done(name, version):
                tally.forget()
                return
            loaded = load_unit(
                dataset, name, self._data, frames=self._config.frames, cache=self._config.output / DIGESTS
            )
            system = self._make(loaded)
        except FoundryError as error:
            self.refuse(name, (f"{error} {error.hint or ''}".strip(),))
            return
        if loaded.defects and not self._config.allow_defects:
            self.refuse(name, loaded.defects)
            return
        encoded = tally.first(lambda: system.missing([loaded.task]))
        try:
            system.prepare([loaded.task])  # every process takes its share, also of a task that another scores
        except BadItemsError as error:
            self.refuse(name, (f"{error} {error.hint or ''}".strip(),))
            tally.forget()
            return
        with taken(self._beside(name, "lock")) as mine:
            if not mine:
                self._elsewhere.append((dataset, name))
                return
            if not self._is_done(name, version):
                self._score(dataset, loaded, system, encoded, started, version)
                self.scored.append(name)
            tally.forget()

    def await_others(self) -> None:
        """Wait for the tasks that other processes are at; one that died leaves its task to this process."""
        while self._elsewhere:
            dataset, name = self._elsewhere.pop()
            with taken(self._beside(name, "lock"), wait=True):
                pass
            self.attempt(dataset, name)

    def _is_done(self, name: str, version: str | None) -> bool:
        """Whether there is a result that counts: any of these data, or one of this run where all are to be made again.

        Where there are no data to look at, `version` is None, and a result of whichever data stands. One that mteb
        wrote says nothing of them: it goes by its place, which names the model.
        """
        path = self._path(name)
        if not path.exists() or (self._config.overwrite == "always" and not _is_of_run(path, self._began)):
            return False
        record = read_result(path)
        if record is None:
            return True
        same_model = (record.model, record.revision) == (str(self._meta.name), str(self._meta.revision))
        return same_model and version in (None, record.data_version)

    def _path(self, name: str) -> Path:
        return result_path(self._config.home, self._meta, name)

    def _beside(self, name: str, suffix: str) -> Path:
        path = self._path(name)
        return path.with_name(f".{path.stem}.{suffix}")

    @property
    def _data(self) -> Path | None:
        return self._config.tasks or self._config.data

    def refuse(self, name: str, reasons: tuple[str, ...]) -> None:
        """Remember why a task is not scored, and go on."""
        self.refused[name] = reasons
        _log.warning("%s is refused: %s", name, "; ".join(reasons))

    def _score(
        self,
        dataset: Dataset,
        loaded: Loaded,
        system: VectorSystem,
        encoded: int,
        started: float,
        version: str | None,
    ) -> None:
        config, task, path = self._config, loaded.task, self._path(loaded.task.card.name)
        metrics = list(dict.fromkeys([dataset.metric, *MTEB_METRICS]))
        outcome = system.outcome(task, metrics, min(config.depth, len(task.docs)))
        folder = path.parent
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
            data_version=version or "",
            data_digest=loaded.digest,
            source=loaded.source,
            defects=loaded.defects,
            encoded=encoded,
            seconds=round(time.monotonic() - started, 3),
            versions=versions(),
        )
        write_result(path, loaded.mteb, record, task.card.split, nauc_of(outcome))
