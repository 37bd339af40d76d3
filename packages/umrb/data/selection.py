"""Lists the tasks of the suites of a configuration, each with the folder of its data, without loading them.

Knows suites and folders; no model. mteb is imported only for benchmarks that are read by it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gme_data.errors import FoundryError, did_you_mean
from umrb.config import SuiteSelection, Suite
from umrb.data.task_folders import disk_datasets, files_digest, unusable_tasks
from umrb.registry import Dataset, choose, select

DATA = Path("data/umrb")
"""Default folder of `gme umrb fetch`."""


@dataclass(frozen=True, slots=True)
class SuiteTask:
    """One task of a suite.

    Attributes:
        suite: Name of the suite.
        dataset: Row of the suite that the task belongs to.
        name: Name of the task at its source.
        data: Folder of its data; None leaves it to mteb to find them.
        trusted: Whether the folder is an output of a step, whose manifest was verified, so that its pictures need no
            comparison with their ids.
    """

    suite: str
    dataset: Dataset
    name: str
    data: Path | None
    trusted: bool = False


def chosen_datasets(suite: Suite) -> tuple[Dataset, ...]:
    """Return the datasets of a suite that does not come with a corpus.

    Raises:
        FoundryError: An unknown name, or a folder without tasks.
    """
    if suite.tasks:
        return select(str(suite.tasks), disk_datasets(suite.tasks), suite.datasets)
    return choose(suite.suite, suite.datasets)


def suite_tasks(suite: Suite, corpus_tasks: Path | None = None) -> list[SuiteTask]:
    """List the tasks of a suite.

    Args:
        suite: The suite.
        corpus_tasks: Folder of the corpus's tasks, for the suite ``held-out``.

    Raises:
        FoundryError: As `chosen_datasets`.
    """
    if suite.is_held_out:
        folder = corpus_tasks or Path()
        datasets = select(str(folder), disk_datasets(folder), suite.datasets)
        return [SuiteTask(suite.label, dataset, dataset.id, folder, trusted=True) for dataset in datasets]
    data = suite.tasks or suite.data or DATA
    return [SuiteTask(suite.label, row, task, data) for row in chosen_datasets(suite) for task in row.tasks]


def selected_tasks(config: SuiteSelection, corpus: Path) -> list[SuiteTask]:
    """List the tasks of all suites, or those of them that ``scoring.tasks`` names.

    Args:
        config: Suites and scoring.
        corpus: Output with the held-out tasks.

    Raises:
        FoundryError: As `chosen_datasets`; no suite has a task of a name, or two suites have one.
    """
    folder = corpus / "tasks" / config.scoring.split
    tasks = [task for suite in config.suites for task in suite_tasks(suite, folder)]
    # Results are filed by the name of the task, so it must be unique across suites.
    names = Counter(task.name for task in tasks)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise FoundryError(f"Two of the suites have a task {', '.join(twice)}.", hint="Name a task apart in `suites`.")
    selected = config.scoring.tasks
    if unknown := sorted(set(selected) - set(names)):
        raise FoundryError(
            f"No task {', '.join(unknown)} among those that judge.{did_you_mean(unknown[0], names)}",
            hint=f"There are: {', '.join(names)}.",
        )
    return [task for task in tasks if not selected or task.name in selected]


def require_data(suite: Suite) -> list[list[Any]]:
    """Return the state of the data of each task of a suite that does not come with a corpus.

    Returns:
        A list ``[suite, task, digest or version of its data]`` for each task.

    Raises:
        FoundryError: Data are missing, with the command that fetches them; or a task of a folder can't be used.
    """
    if suite.tasks and (unusable := unusable_tasks(suite.tasks)):
        raise FoundryError("\n".join(unusable.values()), hint="Mend them, or name the others in `datasets`.")
    if suite.tasks:
        return [[suite.label, task.name, files_digest(suite.tasks / task.name)] for task in suite_tasks(suite)]
    from umrb.data.fetch import fetched_state

    data = suite.data or DATA
    tasks = suite_tasks(suite)
    versions = {task.name: fetched_state(task.dataset, task.name, data) for task in tasks}
    missing = sorted({task.dataset.name for task in tasks if versions[task.name] is None})
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        which = "".join(f" --dataset '{name}'" for name in suite.datasets)
        raise FoundryError(
            f"The data of {shown}, of the suite {suite.label}, are not in {data}.",
            hint=f"gme umrb fetch --suite {suite.suite}{which} --data {data}",
        )
    return [[suite.label, name, version] for name, version in versions.items()]
