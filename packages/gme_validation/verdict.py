"""The verdict of all suites: as JSON, as rows that failed, and as the error that stops the chain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gme_data.errors import FoundryError
from gme_validation.runner import Failure, Judged

_SHOWN = 5
_SHOWN_ROWS = 2


def write_verdict(folder: Path, judged: Sequence[Judged]) -> None:
    """Write ``verdict.json`` and, for each failed expectation, ``failures/<suite>-<n>.json`` with its first rows."""
    failures = [failure for one in judged for failure in one.failures]
    verdict = {
        "passed": not failures,
        "suites": len(judged),
        "expectations": sum(one.evaluated for one in judged),
        "rows": sum(one.rows for one in judged),
        "docs": "docs/index.html",
        "results": [
            {"suite": one.suite, "rows": one.rows, "expectations": one.evaluated, "failed": len(one.failures)}
            for one in judged
        ],
        "failures": [
            {"suite": f.suite, "expectation": f.expectation, "why": f.why, "failing_rows": f.count} for f in failures
        ],
    }
    (folder / "verdict.json").write_text(json.dumps(verdict, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = folder / "failures"
    rows.mkdir(exist_ok=True)
    for number, failure in enumerate(failures):
        text = json.dumps(asdict(failure), indent=1, ensure_ascii=False)
        (rows / f"{failure.suite}-{number:03d}.json").write_text(text + "\n", encoding="utf-8")


def refuse(failures: Sequence[Failure], report: Path) -> FoundryError:
    """The error for failures, naming suite, expectation and first rows; `report` is where all of them can be read."""
    lines = [f"Validation failed: {len(failures)} expectation(s) do not hold."]
    for failure in failures[:_SHOWN]:
        lines.append(f"  {failure.suite}: {failure.expectation}: {failure.why}, {failure.count} row(s)")
        lines += [f"    {json.dumps(row, ensure_ascii=False)[:300]}" for row in failure.rows[:_SHOWN_ROWS]]
    if len(failures) > _SHOWN:
        lines.append(f"  and {len(failures) - _SHOWN} more")
    hint = f"All failing rows: {report / 'failures'}; Data Docs: {report / 'docs' / 'index.html'}."
    return FoundryError("\n".join(lines), hint=hint)
