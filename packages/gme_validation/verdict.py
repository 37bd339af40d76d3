"""Writes the results of all suites as JSON, with the rows that failed, and makes the error that stops the chain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gme_data.errors import FoundryError
from gme_validation.runner import FailedExpectation, SuiteResult

_MAX_FAILURES = 5
_MAX_ROWS = 2
"""Most failures in the error, and most rows of each."""


def write_verdict(folder: Path, results: Sequence[SuiteResult]) -> None:
    """Writes ``verdict.json`` and, for each failed expectation, ``failures/<suite>-<n>.json`` with its first rows."""
    failures = [failure for result in results for failure in result.failures]
    verdict = {
        "passed": not failures,
        "suites": len(results),
        "expectations": sum(result.evaluated for result in results),
        "rows": sum(result.rows for result in results),
        "docs": "docs/index.html",
        "results": [
            {"suite": r.suite, "rows": r.rows, "expectations": r.evaluated, "failed": len(r.failures)} for r in results
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


def validation_error(failures: Sequence[FailedExpectation], report: Path) -> FoundryError:
    """Returns the error for failures: suites, expectations and first rows; `report` is the folder with all of them."""
    lines = [f"Validation failed: {len(failures)} expectation(s) do not hold."]
    for failure in failures[:_MAX_FAILURES]:
        lines.append(f"  {failure.suite}: {failure.expectation}: {failure.why}, {failure.count} row(s)")
        lines += [f"    {json.dumps(row, ensure_ascii=False)[:300]}" for row in failure.rows[:_MAX_ROWS]]
    if len(failures) > _MAX_FAILURES:
        lines.append(f"  and {len(failures) - _MAX_FAILURES} more")
    hint = f"All failing rows: {report / 'failures'}; Data Docs: {report / 'docs' / 'index.html'}."
    return FoundryError("\n".join(lines), hint=hint)
