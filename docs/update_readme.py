"""Writes the scores of the newest report into the README and into docs/results.md: ``make readme``, after a run.

Each page has a table between two marker comments: the README one of task types, the results one of all tasks. Nothing
else of them is touched.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCORES = ROOT / "reports" / "latest" / "scores.json"
TABLE_OF_TYPES = (ROOT / "README.md", "types")
TABLE_OF_TASKS = (ROOT / "docs" / "results.md", "scores")


def main() -> int:
    """Rewrite both tables; the exit code is 2 if there is no report."""
    if not SCORES.exists():
        sys.stderr.write(f"No report at {SCORES}: run make pipeline first.\n")
        return 2
    tasks = json.loads(SCORES.read_text(encoding="utf-8"))["tasks"]
    replace_table(*TABLE_OF_TYPES, type_table(tasks))
    replace_table(*TABLE_OF_TASKS, task_table(tasks))
    return 0


def replace_table(page: Path, name: str, table: str) -> None:
    """Put a table between the markers ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, behind = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{table}\n{end}{behind.split(end)[1]}", encoding="utf-8")


def type_table(tasks: Sequence[Mapping[str, Any]]) -> str:
    """One row a task type: the mean over its tasks, beside the baseline whose mean over the same tasks is highest."""
    rows = ["| type | tasks | queries | this model | best baseline |", "|---|---|---|---|---|"]
    for task_type in dict.fromkeys(task["task_type"] for task in tasks):
        of_type = [task for task in tasks if task["task_type"] == task_type]
        mean = sum(task["value"] for task in of_type) / len(of_type)
        everywhere = set.intersection(*(set(task["baselines"]) for task in of_type))
        baselines = {name: sum(task["baselines"][name] for task in of_type) / len(of_type) for name in everywhere}
        score, baseline = compared(f"{mean:.3f}", mean, baselines)
        queries = sum(task["queries"] for task in of_type)
        rows.append(f"| {arrow(task_type)} | {len(of_type)} | {queries} | {score} | {baseline} |")
    return "\n".join(rows)


def task_table(tasks: Sequence[Mapping[str, Any]]) -> str:
    """One row a task, with its interval and the baseline that scores highest."""
    rows = [
        "| type | task | metric | score [95 %] | R@1 | R@10 | best baseline | queries / pool |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        low, high = task["interval"]
        score, baseline = compared(f"{task['value']:.3f} [{low:.2f}, {high:.2f}]", task["value"], task["baselines"])
        cells = [
            arrow(task["task_type"]),
            task["name"],
            task["metric"].replace("hit_rate_at_", "R@").replace("ndcg_at_", "nDCG@"),
            score,
            f"{task['scores']['hit_rate_at_1']:.3f}",
            f"{task['scores']['hit_rate_at_10']:.3f}",
            baseline,
            f"{task['queries']} / {task['pool']}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def compared(score: str, value: float, baselines: Mapping[str, float]) -> tuple[str, str]:
    """The cells of model and best baseline; the higher of the two is bold, a tie goes to the baseline."""
    name, best = max(sorted(baselines.items()), key=lambda pair: pair[1])
    baseline = f"{name} {best:.3f}"
    return (f"**{score}**", baseline) if value > best else (score, f"**{baseline}**")


def arrow(task_type: str) -> str:
    """The task type as people read it, such as ``T→VD``."""
    return task_type.replace("->", "→")


if __name__ == "__main__":
    sys.exit(main())
