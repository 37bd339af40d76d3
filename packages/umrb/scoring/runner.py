"""Scores a system on tasks, one after the other: only those without a result, each written as soon as it is scored.

Processes that are given the same folder share the work: encoding chunk by chunk, scoring task by task. A killed run
resumes at the task it was scoring. A task with defects is refused unless `ScoringConfig.allow_defects` is set, and its
result then says so. Knows neither what a system is made of nor what a table looks like.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from gme_data.errors import FoundryError
from gme_data.locks import try_lock
from gme_data.progress import Progress
from gme_data.scores import SubsetScore, TaskScore
from umrb.config import REPORTED, ScoringConfig
from umrb.data.loading import LoadedTask, data_version, load_suite_task
from umrb.data.selection import SuiteTask
from umrb.data.tasks import NumberedTask
from umrb.intervals import bootstrap_interval
from umrb.metrics import Floats
from umrb.scoring.cards import EXAMPLES
from umrb.scoring.examples import write_examples, write_vector_sample
from umrb.scoring.result_files import MTEB_DEPTH, MTEB_METRICS, TaskRecord, read_result, versions, write_result
from umrb.scoring.run_files import write_run_files
from umrb.scoring.sharing import FirstWriterCounter, shared_run
from umrb.systems.base import BadItemsError, System, SystemFactory, VectorSystem

_log = logging.getLogger(__name__)

TaskLoader: TypeAlias = Callable[[SuiteTask], LoadedTask | None]
"""Makes a task ready; None leaves it out."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run scores and which files it writes.

    Attributes:
        scoring: Depth, intervals, and whether tasks with defects are scored.
        as_mteb: Write the metrics of mteb for every task; those of its own tasks are always written.
        overwrite: Whether a result that exists is kept, scored again, or makes the run refuse to start.
        timed: Record date and duration. An output that must have the same bytes at every run is not timed.
        examples: Write hits, misses and some vectors for a report.
    """

    scoring: ScoringConfig
    as_mteb: bool = False
    overwrite: Literal["only-missing", "always", "never"] = "only-missing"
    timed: bool = False
    examples: bool = True


@dataclass(frozen=True, slots=True)
class RunResult:
    """The results of one system after a run.

    Attributes:
        folder: Holds ``<task>.json``, ``runs/<task>.parquet`` (rank from 1), ``queries/<task>.parquet``, examples.
        records: Of all tasks that have a result now, except those refused.
        scored: Tasks scored by this call; other processes may have scored others meanwhile.
        refused: Tasks that can't be scored as they are, with the reasons.
    """

    folder: Path
    records: tuple[TaskRecord, ...]
    scored: tuple[str, ...]
    refused: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Runner:
    """Scores one system.

    Attributes:
        folder: See `RunResult`.
        name: Name of the system.
        revision: Revision of the system; a result of another revision is scored again.
        options: See the class.
        load: Makes tasks ready; a caller that scores several systems may cache them there.
    """

    folder: Path
    name: str
    revision: str
    options: RunOptions
    load: TaskLoader

    def run(
        self, tasks: Sequence[SuiteTask], make: SystemFactory, refused: Mapping[str, str] | None = None
    ) -> RunResult:
        """Score the system on every task that it applies to; processes that share the run all return at its end.

        Args:
            tasks: The tasks.
            make: Makes the system for each task; encoders and stores may be shared.
            refused: Tasks that are known to be unusable, with the reason.

        Raises:
            FoundryError: There is a result and ``overwrite="never"``, or a system returns what is no vector. Results
                that were written before remain.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with shared_run(self.folder) as began:
            paths = [self.path(task.name) for task in tasks]
            existing = [path.stem for path in paths if path.exists() and not _is_of_run(path, began)]
            # Files of this run are another process's, which shares it.
            if existing and self.options.overwrite == "never":
                raise FoundryError(
                    f"Results are there: {', '.join(existing[:3])}.", hint="Give --overwrite only-missing."
                )
            scorer = _TaskScorer(self, make, began)
            for name, reason in (refused or {}).items():
                scorer.refuse(name, (reason,))
            # Tasks of other processes are passed over first, and waited for at the end.
            with Progress(f"score {self.name}", len(tasks), "tasks") as progress:
                for task in tasks:
                    value = scorer.attempt(task)
                    progress.advance(note=task.name if value is None else f"{task.name} {value:.3f}")
                scorer.await_others()
        records = [read_result(self.path(task.name)) for task in tasks if task.name not in scorer.without_result]
        return RunResult(self.folder, tuple(filter(None, records)), tuple(scorer.scored), scorer.refused)

    def path(self, task: str) -> Path:
        """Return the path of a task's result."""
        return self.folder / f"{task}.json"


def load_uncached(task: SuiteTask) -> LoadedTask:
    """Make a task ready without caching anything of it."""
    return load_suite_task(task.dataset, task.name, task.data, read_pictures=not task.trusted)


def _is_of_run(path: Path, began: float) -> bool:
    """Whether this run wrote a file. Where dates are too coarse to tell, it did not, and the task is scored again."""
    return path.stat().st_mtime > began


class _TaskScorer:
    """Scores the tasks of a run and remembers which were scored, refused, or left to other processes."""

    def __init__(self, runner: Runner, make: SystemFactory, began: float) -> None:
        self._runner, self._make, self._began = runner, make, began
        self._options = runner.options
        self._at_other_processes: list[SuiteTask] = []
        self._not_applicable: set[str] = set()
        self.scored: list[str] = []
        self.refused: dict[str, tuple[str, ...]] = {}

    @property
    def without_result(self) -> set[str]:
        """Names of the tasks that have no result of this run: refused, or not what the system applies to."""
        return {*self.refused, *self._not_applicable}

    def attempt(self, task: SuiteTask) -> float | None:
        """Score one task and return its score.

        Returns:
            None if the task has a result already, is refused, or is being scored by another process.
        """
        counter = FirstWriterCounter(self._beside(task, "encoded"))
        started = time.monotonic()
        try:
            version = data_version(task.dataset, task.name, task.data)
            ready = None if self._is_done(task, version) else self._ready(task)
            if ready is None:
                counter.forget()
                return None
            loaded, system = ready
            encoded = counter.first(lambda: system.missing([loaded.task]))
        except FoundryError as error:
            self._refuse_for(task, error)
            return None
        try:
            # Before the lock of the task: every process encodes its share, also for a task that another will score.
            system.prepare([loaded.task])
        except BadItemsError as error:
            self._refuse_for(task, error)
            counter.forget()
            return None
        with try_lock(self._beside(task, "lock")) as is_ours:
            if not is_ours:
                self._at_other_processes.append(task)
                return None
            value = None
            # Another process may have scored it between the first look and the lock.
            if not self._is_done(task, version):
                value = self._score(task, loaded, system, encoded, started, version)
                self.scored.append(task.name)
            counter.forget()
        return value

    def _ready(self, task: SuiteTask) -> tuple[LoadedTask, System] | None:
        """Load a task and make its system; None for a task that is not scored, which is remembered."""
        loaded = self._runner.load(task)
        system = self._make(loaded) if loaded else None
        if loaded is None or system is None or not system.applies_to(loaded.task.card):
            self._not_applicable.add(task.name)
            return None
        if loaded.defects and not self._options.scoring.allow_defects:
            self.refuse(task.name, loaded.defects)
            return None
        return loaded, system

    def await_others(self) -> None:
        """Wait for the tasks of other processes; the task of a process that died is scored by this one."""
        while self._at_other_processes:
            task = self._at_other_processes.pop()
            with try_lock(self._beside(task, "lock"), wait=True):
                pass
            self.attempt(task)

    def refuse(self, name: str, reasons: tuple[str, ...]) -> None:
        """Remember why a task is not scored, and go on."""
        self.refused[name] = reasons
        _log.warning("%s is refused: %s", name, "; ".join(reasons))

    def _refuse_for(self, task: SuiteTask, error: FoundryError) -> None:
        self.refuse(task.name, (f"{error} {error.hint or ''}".strip(),))

    def _is_done(self, task: SuiteTask, version: str | None) -> bool:
        """Whether a task has a valid result.

        A result is valid if it is of this system and these data and, with ``overwrite="always"``, was written by this
        run. `version` is None where there are no data to look at, and then a result of any data is valid. A result
        that mteb wrote names neither model nor data; it is valid because its folder names the model.
        """
        path = self._runner.path(task.name)
        if not path.exists() or (self._options.overwrite == "always" and not _is_of_run(path, self._began)):
            return False
        record = read_result(path)
        if record is None:
            return True
        same_model = (record.model, record.revision) == (self._runner.name, self._runner.revision)
        return same_model and version in (None, record.data_version)

    def _beside(self, task: SuiteTask, suffix: str) -> Path:
        return self._runner.folder / f".{task.name}.{suffix}"

    def _score(
        self,
        suite_task: SuiteTask,
        loaded: LoadedTask,
        system: System,
        encoded: int,
        started: float,
        version: str | None,
    ) -> float:
        options, task, folder = self._options, loaded.task, self._runner.folder
        as_mteb = options.as_mteb or loaded.mteb is not None
        depth = max(options.scoring.depth, MTEB_DEPTH) if as_mteb else options.scoring.depth
        metrics = [task.card.metric, *(MTEB_METRICS if as_mteb else (*REPORTED, f"map_at_{depth}"))]
        scores = system.score(task, list(dict.fromkeys(metrics)), min(depth, len(task.docs)))
        write_run_files(folder, task, scores, options.scoring.run_depth)
        if options.examples:
            write_examples(folder / EXAMPLES, task, scores, options.scoring.seed)
            if isinstance(system, VectorSystem):
                write_vector_sample(folder / EXAMPLES, system, task, options.scoring.seed)
        naucs: dict[str, float] = {}
        if as_mteb:
            from umrb.scoring.abstention import nauc_of  # imports mteb, which takes seconds

            naucs = nauc_of(scores)
        record = TaskRecord(
            model=self._runner.name,
            revision=self._runner.revision,
            score=score_of(suite_task, task, scores.metrics, options.scoring),
            prompt=task.card.instruction,
            licences=task.card.licences,
            data_revision=loaded.revision,
            data_version=version or "",
            data_digest=loaded.digest,
            # A path differs from machine to machine, and an untimed output must have the same bytes on each.
            source=loaded.source if options.timed else suite_task.suite,
            defects=loaded.defects,
            encoded=encoded,
            seconds=round(time.monotonic() - started, 3) if options.timed else None,
            versions=versions(),
        )
        # Written last: a result file is what says that the task is done.
        write_result(self._runner.path(suite_task.name), loaded.mteb, record, task.card.split, naucs)
        return record.score.value


def score_of(
    suite_task: SuiteTask, task: NumberedTask, metrics: Mapping[str, Floats], config: ScoringConfig
) -> TaskScore:
    """Compute means, interval and breakdown by subset of per-query values.

    Args:
        suite_task: The row of the suite.
        task: The same task, loaded.
        metrics: Per-query values by metric, [q] each.
        config: Bootstrap resamples and seed.
    """
    headline = metrics[task.card.metric]
    subsets = np.array(task.queries.subsets)
    return TaskScore(
        name=task.card.name,
        suite=suite_task.suite,
        dataset=suite_task.dataset.id,
        task_type=task.card.task_type,
        subset=task.card.subset,
        metric=task.card.metric,
        value=float(headline.mean()),
        interval=bootstrap_interval(headline, resamples=config.resamples, seed=config.seed),
        scores={name: float(values.mean()) for name, values in metrics.items()},
        queries=len(task.queries),
        pool=len(task.docs),
        subsets={
            str(name): SubsetScore(value=float(headline[subsets == name].mean()), queries=int((subsets == name).sum()))
            for name in np.unique(subsets)
        },
    )
