"""Which tasks judge: the units of work of suites, each with the place of its data. Loads none of them.

Knows suites and folders; no model. Nothing of mteb is imported before a benchmark of its asks for it.
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
"""Where `gme umrb fetch` puts the data of suites unless told otherwise."""


@dataclass(frozen=True, slots=True)
class SuiteTask:
    """One task of a suite.

    Attributes:
        suite: What the suite is called.
        dataset: The row of the suite.
        name: The task's name at its source.
        data: Folder of its data; None leaves it to mteb to find them.
        trusted: Whether the folder is an output of a step, whose bytes its manifest vouches for.
    """

    suite: str
    dataset: Dataset
    name: str
    data: Path | None
    trusted: bool = False


def chosen_datasets(suite: Suite) -> tuple[Dataset, ...]:
    """The datasets of a suite that does not come with a corpus.

    Raises:
        FoundryError: An unknown name, or a folder without tasks.
    """
    if suite.tasks:
        return select(str(suite.tasks), disk_datasets(suite.tasks), suite.datasets)
    return choose(suite.suite, suite.datasets)


def suite_tasks(suite: Suite, corpus_tasks: Path | None = None) -> list[SuiteTask]:
    """The tasks of a suite.

    Args:
        suite: Which.
        corpus_tasks: Where the tasks of the corpus lie, for the suite of those held out.

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
    """The tasks that judge, of all suites, or those that ``scoring.tasks`` names.

    Args:
        config: Suites and scoring.
        corpus: Output with the tasks held out.

    Raises:
        FoundryError: As `chosen_datasets`; a name that no suite has, or that two of them have.
    """
    folder = corpus / "tasks" / config.scoring.split
    units = [unit for suite in config.suites for unit in suite_tasks(suite, folder)]
    names = Counter(unit.name for unit in units)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise FoundryError(f"Two of the suites have a task {', '.join(twice)}.", hint="Name a task apart in `suites`.")
    only = config.scoring.tasks
    if unknown := sorted(set(only) - set(names)):
        raise FoundryError(
            f"No task {', '.join(unknown)} among those that judge.{did_you_mean(unknown[0], names)}",
            hint=f"There are: {', '.join(names)}.",
        )
    return [unit for unit in units if not only or unit.name in only]


def require_data(suite: Suite) -> list[list[Any]]:
    """The state of the data of each task of a suite that does not come with a corpus.

    Raises:
        FoundryError: Data are not there, with the command that fetches them; or a task of a folder can't be used.
    """
    if suite.tasks and (unusable := unusable_tasks(suite.tasks)):
        raise FoundryError("\n".join(unusable.values()), hint="Mend them, or name the others in `datasets`.")
    if suite.tasks:
        return [[suite.label, unit.name, files_digest(suite.tasks / unit.name)] for unit in suite_tasks(suite)]
    from umrb.data.fetch import fetched_state

    data = suite.data or DATA
    units = suite_tasks(suite)
    versions = {unit.name: fetched_state(unit.dataset, unit.name, data) for unit in units}
    missing = sorted({unit.dataset.name for unit in units if versions[unit.name] is None})
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        which = "".join(f" --dataset '{name}'" for name in suite.datasets)
        raise FoundryError(
            f"The data of {shown}, of the suite {suite.label}, are not in {data}.",
            hint=f"gme umrb fetch --suite {suite.suite}{which} --data {data}",
        )
    return [[suite.label, name, version] for name, version in versions.items()]
