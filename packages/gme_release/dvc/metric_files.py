"""Scores and curves of the newest run, as small files that git keeps, so that two revisions can be compared.

`dvc metrics diff` and `dvc plots diff` read what ``dvc.yaml`` names at both revisions; ``reports/`` is in neither,
because git ignores it. Knows the report's files, not how they came about.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from gme_data.journal import atomic_write
from gme_data.scores import read_report_scores

HOME = Path("metrics")
"""Folder of the files, below the workspace."""
_PLOTS = ("curves.csv", "tasks.csv", "types.csv", "funnel.csv")


def write_metric_files(workspace: Path, report: Path, pipeline: str = "") -> Path:
    """Writes ``metrics/scores.json`` and the plots' data from a report, and returns the folder.

    Args:
        workspace: The workspace.
        report: Folder of the report.
        pipeline: Folder in ``metrics/`` of a pipeline that shares its workspace, such as ``pipelines/own``.
    """
    folder = workspace / HOME / pipeline
    folder.mkdir(parents=True, exist_ok=True)
    scores = read_report_scores(report)
    # `dvc metrics diff` compares nested mappings of names to numbers, and leaves lists out.
    comparable = {
        "overall": scores.overall,
        "types": {name.replace("->", " to "): value for name, value in scores.types.items()},
        "tasks": {task.name: {task.metric: task.value, **task.scores} for task in scores.tasks},
    }
    atomic_write(folder / "scores.json", (json.dumps(comparable, indent=1, ensure_ascii=False) + "\n").encode())
    for name in _PLOTS:
        if (report / "plots" / name).is_file():
            shutil.copyfile(report / "plots" / name, folder / name)
        else:  # else the plot of an earlier run would stand beside the scores of this one
            (folder / name).unlink(missing_ok=True)
    return folder
