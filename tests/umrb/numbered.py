"""Tasks made ready for tests of what scores them: those on disk, and those in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.tasks import RetrievalTask
from umrb.config import Suite
from umrb.data.selection import suite_tasks
from umrb.data.tasks import NumberedTask, check_task
from umrb.scoring.runner import load_uncached


def number_task(task: RetrievalTask, images: ImageStore | None = None) -> NumberedTask:
    """The task; `FoundryError` with its defects if it has any."""
    numbered, problems = check_task(task, images)
    if problems:
        raise FoundryError("; ".join(problems))
    return numbered


def load_tasks(folder: Path, only: Sequence[str] = ()) -> list[NumberedTask]:
    """The tasks below a folder of a corpus, as a pipeline loads them."""
    return [load_uncached(unit).task for unit in suite_tasks(Suite(datasets=tuple(only)), folder)]
