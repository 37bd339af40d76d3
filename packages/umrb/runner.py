"""Scores a system on tasks, task after task, only what is missing, each written down as it is done.

Processes that are given the same folder share the work: encoding chunk by chunk, scoring task by task. A killed run
goes on with the task it was at. A task with defects is refused unless told otherwise, and its result then says so.
Knows neither what a system is made of nor what a table looks like.
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
from umrb.cards import EXAMPLES
from umrb.config import REPORTED, ScoringConfig
from umrb.examples import write_examples, write_sample
from umrb.intervals import bootstrap_interval
from umrb.loading import Loaded, data_version, load_unit
from umrb.metrics import Floats
from umrb.outcome_files import write_outcome
from umrb.result_files import MTEB_DEPTH, MTEB_METRICS, TaskRecord, read_result, versions, write_result
from umrb.sharing import Tally, joined
from umrb.systems import BadItemsError, Outcome, System, VectorSystem
from umrb.tasks import NumberedTask
from umrb.units import Unit

_log = logging.getLogger(__name__)

MakeSystem: TypeAlias = Callable[[Loaded], System]
"""The system that scores a task; a model of mteb is told which task it is."""
Load: TypeAlias = Callable[[Unit], Loaded | None]
"""A task made ready; None leaves it out."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run scores and what it leaves.

    Attributes:
        scoring: Depth, intervals, and whether tasks with defects are scored.
        as_mteb: Write the metrics of mteb for every task; those of its own tasks are always written.
        overwrite: What to do where a result is there: keep it, score again, or refuse to run at all.
        timed: Write down when and how long. An output that must be the same at every run is not timed.
        examples: Write hits, misses and some vectors for a report.
    """

    scoring: ScoringConfig
    as_mteb: bool = False
    overwrite: Literal["only-missing", "always", "never"] = "only-missing"
    timed: bool = False
    examples: bool = True


@dataclass(frozen=True, slots=True)
class Scored:
    """What a run of a system left.

    Attributes:
        folder: Gets ``<task>.json``, ``runs/<task>.parquet`` (rank from 1), ``queries/<task>.parquet``, examples.
        records: Of all tasks that have a result now, but those refused.
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
        folder: See `Scored`.
        name: Of the system.
        revision: Of the system, beside its name: what has another one is scored again.
        options: See the class.
        load: Makes tasks ready; loading them once for several systems is its business.
    """

    folder: Path
    name: str
    revision: str
    options: RunOptions
    load: Load

    def run(self, units: Sequence[Unit], make: MakeSystem, refused: Mapping[str, str] | None = None) -> Scored:
        """Score a system on every task that it applies to; where processes share the work, each returns at its end.

        Args:
            units: The tasks.
            make: Makes the system for each; encoders and stores may be shared.
            refused: Tasks that are known not to be usable, with why.

        Raises:
            FoundryError: A result that is there with ``overwrite="never"``, a system that returns what is no vector.
                What was scored before stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with joined(self.folder) as began:
            paths = [self.path(unit.name) for unit in units]
            there = [path.stem for path in paths if path.exists() and not _is_of_run(path, began)]
            if there and self.options.overwrite == "never":
                raise FoundryError(f"Results are there: {', '.join(there[:3])}.", hint="Give --overwrite only-missing.")
            work = _Work(self, make, began)
            for name, reason in (refused or {}).items():
                work.refuse(name, (reason,))
            with Progress(f"score {self.name}", len(units), "tasks") as progress:
                for unit in units:
                    value = work.attempt(unit)
                    progress.advance(note=unit.name if value is None else f"{unit.name} {value:.3f}")
                work.await_others()
        found = [read_result(self.path(unit.name)) for unit in units if unit.name not in work.passed_over]
        return Scored(self.folder, tuple(filter(None, found)), tuple(work.scored), work.refused)

    def path(self, task: str) -> Path:
        """Where the result of a task lies."""
        return self.folder / f"{task}.json"


def load_plainly(unit: Unit) -> Loaded:
    """A task made ready, nothing kept."""
    return load_unit(unit.dataset, unit.name, unit.data, read_pictures=not unit.trusted)


def _is_of_run(path: Path, began: float) -> bool:
    """Whether this run, or a process that shares it, wrote a file. If dates can not tell: no; it is scored again."""
    return path.stat().st_mtime > began


class _Work:
    """Scores tasks and remembers what became of them."""

    def __init__(self, runner: Runner, make: MakeSystem, began: float) -> None:
        self._runner, self._make, self._began = runner, make, began
        self._options = runner.options
        self._elsewhere: list[Unit] = []
        self._left_out: set[str] = set()
        self.scored: list[str] = []
        self.refused: dict[str, tuple[str, ...]] = {}

    @property
    def passed_over(self) -> set[str]:
        """Tasks without a result of this run: refused, or not what the system applies to."""
        return {*self.refused, *self._left_out}

    def attempt(self, unit: Unit) -> float | None:
        """Score one task, unless it is done, or its data or another process are against it; the score if it did."""
        tally = Tally(self._beside(unit, "encoded"))
        started = time.monotonic()
        try:
            version = data_version(unit.dataset, unit.name, unit.data)
            ready = None if self._is_done(unit, version) else self._ready(unit)
            if ready is None:
                tally.forget()
                return None
            loaded, system = ready
            encoded = tally.first(lambda: system.missing([loaded.task]))
        except FoundryError as error:
            self._refuse_for(unit, error)
            return None
        try:
            system.prepare([loaded.task])  # every process takes its share, also of a task that another scores
        except BadItemsError as error:
            self._refuse_for(unit, error)
            tally.forget()
            return None
        with try_lock(self._beside(unit, "lock")) as is_ours:
            if not is_ours:
                self._elsewhere.append(unit)
                return None
            value = None
            if not self._is_done(unit, version):
                value = self._score(unit, loaded, system, encoded, started, version)
                self.scored.append(unit.name)
            tally.forget()
        return value

    def _ready(self, unit: Unit) -> tuple[Loaded, System] | None:
        """A task and what scores it; None for one that is not scored, which is remembered."""
        loaded = self._runner.load(unit)
        system = self._make(loaded) if loaded else None
        if loaded is None or system is None or not system.applies_to(loaded.task.card):
            self._left_out.add(unit.name)
            return None
        if loaded.defects and not self._options.scoring.allow_defects:
            self.refuse(unit.name, loaded.defects)
            return None
        return loaded, system

    def await_others(self) -> None:
        """Wait for the tasks that other processes are at; one that died leaves its task to this process."""
        while self._elsewhere:
            unit = self._elsewhere.pop()
            with try_lock(self._beside(unit, "lock"), wait=True):
                pass
            self.attempt(unit)

    def refuse(self, name: str, reasons: tuple[str, ...]) -> None:
        """Remember why a task is not scored, and go on."""
        self.refused[name] = reasons
        _log.warning("%s is refused: %s", name, "; ".join(reasons))

    def _refuse_for(self, unit: Unit, error: FoundryError) -> None:
        self.refuse(unit.name, (f"{error} {error.hint or ''}".strip(),))

    def _is_done(self, unit: Unit, version: str | None) -> bool:
        """Whether there is a result that counts: any of these data, or one of this run where all are to be made again.

        Where there are no data to look at, `version` is None, and a result of whichever data stands. One that mteb
        wrote says nothing of them: it goes by its place, which names the model.
        """
        path = self._runner.path(unit.name)
        if not path.exists() or (self._options.overwrite == "always" and not _is_of_run(path, self._began)):
            return False
        record = read_result(path)
        if record is None:
            return True
        same_model = (record.model, record.revision) == (self._runner.name, self._runner.revision)
        return same_model and version in (None, record.data_version)

    def _beside(self, unit: Unit, suffix: str) -> Path:
        return self._runner.folder / f".{unit.name}.{suffix}"

    def _score(
        self, unit: Unit, loaded: Loaded, system: System, encoded: int, started: float, version: str | None
    ) -> float:
        options, task, folder = self._options, loaded.task, self._runner.folder
        as_mteb = options.as_mteb or loaded.mteb is not None
        depth = max(options.scoring.depth, MTEB_DEPTH) if as_mteb else options.scoring.depth
        metrics = [task.card.metric, *(MTEB_METRICS if as_mteb else (*REPORTED, f"map_at_{depth}"))]
        outcome = system.outcome(task, list(dict.fromkeys(metrics)), min(depth, len(task.docs)))
        write_outcome(folder, task, outcome, options.scoring.kept)
        if options.examples:
            write_examples(folder / EXAMPLES, task, outcome, options.scoring.seed)
            if isinstance(system, VectorSystem):
                write_sample(folder / EXAMPLES, system, task, options.scoring.seed)
        record = TaskRecord(
            model=self._runner.name,
            revision=self._runner.revision,
            score=score_of(unit, task, outcome.metrics, options.scoring),
            prompt=task.card.instruction,
            licences=task.card.licences,
            data_revision=loaded.revision,
            data_version=version or "",
            data_digest=loaded.digest,
            source=loaded.source if options.timed else unit.suite,  # a path is of one machine
            defects=loaded.defects,
            encoded=encoded,
            seconds=round(time.monotonic() - started, 3) if options.timed else None,
            versions=versions(),
        )
        write_result(
            self._runner.path(unit.name), loaded.mteb, record, task.card.split, _naucs(outcome) if as_mteb else {}
        )
        return record.score.value


def _naucs(outcome: Outcome) -> dict[str, float]:
    from umrb.abstention import nauc_of  # its area is a function of mteb

    return nauc_of(outcome)


def score_of(unit: Unit, task: NumberedTask, metrics: Mapping[str, Floats], config: ScoringConfig) -> TaskScore:
    """Means, interval and breakdown of per-query values."""
    headline = metrics[task.card.metric]
    subsets = np.array(task.queries.subsets)
    return TaskScore(
        name=task.card.name,
        suite=unit.suite,
        dataset=unit.dataset.id,
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
