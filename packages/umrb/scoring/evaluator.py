"""Scores systems on the suites of a pipeline: what the steps `evaluate` and `baselines` share.

Tasks are loaded once for all systems, their contents are encoded once for all tasks, and the results of each system
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
"""Name of the evaluated model among the systems."""
VECTORS = ".vectors"
"""Folder of the vectors within a staging folder. It is hidden, since hidden files are not published with the step."""
_SYSTEMS = "systems"


def system_folder(output: Path, system: str) -> Path:
    """Return where a step writes the results of a system: ``runs/``, ``queries/`` and a file for each task."""
    return output / _SYSTEMS / slug(system)


def slug(name: str) -> str:
    """Return `name` as a file name: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Evaluator:
    """Scores systems on the tasks of a step.

    Args:
        config: Suites and scoring.
        corpus: Output with the held-out tasks.
        staging: Folder that gets results and vectors.

    Raises:
        FoundryError: There are no tasks, or two suites have a task of the same name.
    """

    def __init__(self, config: SuiteSelection, corpus: Path, staging: Path) -> None:
        self.store = VectorStore(staging / VECTORS)
        self.tasks = selected_tasks(config, corpus)
        self._config, self._staging = config, staging
        self._loaded: dict[str, LoadedTask] = {}

    def load(self, task: SuiteTask) -> LoadedTask:
        """Make a task ready, once for all systems."""
        if task.name not in self._loaded:
            self._loaded[task.name] = load_uncached(task)
        return self._loaded[task.name]

    def score(
        self, system: System, revision: str, *, load: TaskLoader | None = None, examples: bool = False
    ) -> SystemScores:
        """Score a system on every task that it applies to.

        Args:
            system: The system.
            revision: Names all that its scores depend on beside the tasks.
            load: Loads the tasks that are scored instead of `load` of this class.
            examples: Whether a report will show retrieved documents.

        Raises:
            FoundryError: A task can't be scored as it is: a score without it would be of another benchmark.
        """
        options = RunOptions(self._config.scoring, examples=examples)
        runner = Runner(system_folder(self._staging, system.name), system.name, revision, options, load or self.load)
        result = runner.run(self.tasks, lambda _: system)
        # A pipeline's scores must be of all tasks, or they would not compare from run to run.
        if result.refused:
            lines = [f"Task {name} is not whole: {'; '.join(reasons)}" for name, reasons in result.refused.items()]
            raise FoundryError("\n".join(lines), hint="Mend the tasks, or name others in `suites`.")
        # A report has room for a few of mteb's many metrics; the result files of the tasks hold them all.
        reported = (*REPORTED, f"map_at_{self._config.scoring.depth}")
        scores = [_select_metrics(record.score, reported) for record in result.records]
        order = {task_type: number for number, task_type in enumerate(TASK_TYPES)}
        return SystemScores(system=system.name, tasks=tuple(sorted(scores, key=lambda score: order[score.task_type])))

    def write(self, systems: Sequence[SystemScores]) -> None:
        """Write the scores of all systems."""
        write_systems(self._staging, systems)


def _select_metrics(score: TaskScore, names: Sequence[str]) -> TaskScore:
    """The score with its headline metric and those of `names` that it has."""
    selected = dict.fromkeys([score.metric, *names])
    return score.model_copy(update={"scores": {name: score.scores[name] for name in selected if name in score.scores}})
