"""Write the measured scores of the newest report into the README: ``make readme`` after ``make pipeline``.

The README's table stands between two marker comments; nothing else is touched.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCORES = ROOT / "reports" / "latest" / "scores.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"


def main() -> int:
    """Rewrite the table; 2 if there is no report."""
    if not SCORES.exists():
        sys.stderr.write(f"No report at {SCORES}: run make pipeline first.\n")
        return 2
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = score_table(json.loads(SCORES.read_text(encoding="utf-8")))
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    return 0


def score_table(scores: dict[str, Any]) -> str:
    """One row a task: R@10 with its interval beside the best baseline."""
    head = [
        "| type | task | metric | score [95 %] | R@1 | R@10 | best baseline | queries / pool |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(score_row(task) for task in scores["tasks"])])


def score_row(task: dict[str, Any]) -> str:
    """A row; the better of model and best baseline is bold."""
    name, best = max(task["baselines"].items(), key=lambda pair: pair[1])
    low, high = task["interval"]
    ours, theirs = f"{task['value']:.3f} [{low:.2f}, {high:.2f}]", f"{name} {best:.3f}"
    ours, theirs = (f"**{ours}**", theirs) if task["value"] > best else (ours, f"**{theirs}**")
    cells = [
        task["task_type"].replace("->", "→"),
        task["name"],
        task["metric"].replace("hit_rate_at_", "R@").replace("ndcg_at_", "nDCG@"),
        ours,
        f"{task['scores']['hit_rate_at_1']:.3f}",
        f"{task['scores']['hit_rate_at_10']:.3f}",
        theirs,
        f"{task['queries']} / {task['pool']}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
