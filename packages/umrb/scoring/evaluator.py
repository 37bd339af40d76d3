"""Systems before the suites of a pipeline: what the steps `evaluate` and `baselines` share.

The tasks are loaded once for all systems, their contents are encoded once for all tasks, and the results of each system
lie in a folder of its own, ``systems/<system>``, as those of `gme umrb run` do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES
from gme_data.scores import SystemScores, TaskScore, write_systems
from umrb.config import REPORTED, SuiteSelection
from umrb.data.loading import LoadedTask
from umrb.data.selection import SuiteTask, selected_tasks
from umrb.scoring.runner import Runner, RunOptions, TaskLoader, load_uncached
from umrb.systems.base import System
from umrb.systems.vectors import VectorStore

MODEL = "model"
"""What the judged model is called among the systems."""
VECTORS = ".vectors"
"""Folder of the vectors within a staging folder. Hidden: it goes when the step is published."""
_SYSTEMS = "systems"


def system_folder(output: Path, system: str) -> Path:
    """Where a step leaves the results of a system: ``runs/``, ``queries/`` and a file for each task."""
    return output / _SYSTEMS / slug(system)


def slug(name: str) -> str:
    """`name` as a file name: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Evaluator:
    """The tasks of a step, and what scores systems on them.

    Args:
        config: Suites and scoring.
        corpus: Output with the tasks held out.
        staging: Where results and vectors go.

    Raises:
        FoundryError: No tasks, or a suite's tasks can't be told apart.
    """

    def __init__(self, config: SuiteSelection, corpus: Path, staging: Path) -> None:
        self.store = VectorStore(staging / VECTORS)
        self.units = selected_tasks(config, corpus)
        self._config, self._staging = config, staging
        self._loaded: dict[str, LoadedTask] = {}

    def load(self, unit: SuiteTask) -> LoadedTask:
        """A task made ready, once for all systems."""
        if unit.name not in self._loaded:
            self._loaded[unit.name] = load_uncached(unit)
        return self._loaded[unit.name]

    def score(
        self, system: System, revision: str, *, load: TaskLoader | None = None, examples: bool = False
    ) -> SystemScores:
        """Score a system on every task that it applies to.

        Args:
            system: The system.
            revision: Names all that its scores depend on beside the tasks.
            load: What it is scored on instead of the tasks as they are.
            examples: Whether a report will show what it found.

        Raises:
            FoundryError: A task can't be scored as it is: a score without it would be of another benchmark.
        """
        options = RunOptions(self._config.scoring, examples=examples)
        runner = Runner(system_folder(self._staging, system.name), system.name, revision, options, load or self.load)
        done = runner.run(self.units, lambda _: system)
        if done.refused:
            lines = [f"Task {name} is not whole: {'; '.join(reasons)}" for name, reasons in done.refused.items()]
            raise FoundryError("\n".join(lines), hint="Mend the tasks, or name others in `suites`.")
        order = {kind: place for place, kind in enumerate(TASK_TYPES)}
        scores = [self._reported(record.score) for record in done.records]
        return SystemScores(system=system.name, tasks=tuple(sorted(scores, key=lambda score: order[score.task_type])))

    def write(self, systems: Sequence[SystemScores]) -> None:
        """Write the scores of all systems."""
        write_systems(self._staging, systems)

    def _reported(self, score: TaskScore) -> TaskScore:
        """Of the many metrics of mteb those that a report has room for; the files of the tasks hold them all."""
        wanted = dict.fromkeys([score.metric, *REPORTED, f"map_at_{self._config.scoring.depth}"])
        return score.model_copy(
            update={"scores": {name: score.scores[name] for name in wanted if name in score.scores}}
        )
