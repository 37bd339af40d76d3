"""The scores and curves of the newest run as small files that git keeps, so that two revisions can be compared.

`dvc metrics diff` and `dvc plots diff` read what ``dvc.yaml`` names at both revisions; ``reports/`` is in neither,
because git ignores it. Knows the report's files, not how they came about.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gme_data.journal import atomic_write
from gme_data.scores import ReportScores, read_report_scores

HOME = Path("metrics")
_PLOTS = ("curves.csv", "tasks.csv", "types.csv", "funnel.csv")


def write_diffable(workspace: Path, report: Path, pipeline: str = "") -> Path:
    """Write ``metrics/scores.json`` and the plots' data from a report; returns the folder.

    `pipeline` is a folder in ``metrics/`` for a pipeline that shares its workspace, such as ``pipelines/own``.
    """
    home = workspace / HOME / pipeline
    home.mkdir(parents=True, exist_ok=True)
    scores = read_report_scores(report)
    atomic_write(home / "scores.json", (json.dumps(_plain(scores), indent=1, ensure_ascii=False) + "\n").encode())
    for name in _PLOTS:
        if (report / "plots" / name).is_file():
            shutil.copyfile(report / "plots" / name, home / name)
        else:
            (home / name).unlink(missing_ok=True)
    return home


def _plain(scores: ReportScores) -> dict[str, Any]:
    """Names and numbers alone: DVC compares those, and leaves lists out."""
    types = {name.replace("->", " to "): value for name, value in scores.types.items()}
    tasks = {task.name: {task.metric: task.value, **task.scores} for task in scores.tasks}
    return {"overall": scores.overall, "types": types, "tasks": tasks}
