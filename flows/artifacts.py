"""What a run shows in Prefect's UI: funnel, validation, training, scores, verdict. Shows, never decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.records import Record
from gme_data.steps import Outcome, Step
from gme_data.structured import read_json


def artifact_of(step: Step) -> Callable[[Outcome], None] | None:
    """What shows the output of a step, by what it is; None if nothing does."""
    if step.role == "dataset":
        return funnel if step.section == "synthesis" else None
    return {"validation": validation, "model": training, "report": scores}.get(step.role)


def funnel(outcome: Outcome) -> None:
    """What synthesis kept and rejected, step by step."""
    create_table_artifact(
        table=read_json(outcome.folder / "funnel.json", dict[str, Any])["steps"], key="funnel", description="Synthesis"
    )


def validation(outcome: Outcome) -> None:
    """Which suites were checked, and where their pages are."""
    verdict = read_json(outcome.folder / "verdict.json", dict[str, Any])
    docs = (outcome.folder / verdict["docs"]).resolve()
    create_table_artifact(
        table=verdict["results"],
        key="validation",
        description=f"{verdict['expectations']} expectations in {verdict['suites']} suites; Data Docs: {docs}",
    )


def training(outcome: Outcome) -> None:
    """Counts of a training stage."""
    rows = [f"| {name.replace('_', ' ')} | {value:,.6g} |" for name, value in outcome.manifest.counts.items()]
    counts = "\n".join(rows)
    create_markdown_artifact(
        markdown=f"## {outcome.step}\n\n| | |\n|---|---|\n{counts}\n",
        key=outcome.step,
        description=f"{outcome.manifest.seconds:.0f} s",
    )


def scores(outcome: Outcome) -> None:
    """The score table of all tasks, baselines beside."""
    found = read_json(outcome.folder / "scores.json", dict[str, Any])
    rows = [
        {
            "type": task["task_type"],
            "task": task["name"],
            "metric": task["metric"],
            "value": round(task["value"], 4),
            "pool": task["pool"],
            "queries": task["queries"],
            **{name: round(value, 4) for name, value in task["baselines"].items()},
        }
        for task in found["tasks"]
    ]
    create_table_artifact(table=rows, key="scores", description=f"Overall {found['overall']:.3f}")


def verdict(record: Record) -> None:
    """The gate's decision, check by check."""
    checks = [
        {"check": check.name, "passed": check.passed, "detail": check.detail}
        for check in record.registration.verdict.checks
    ]
    create_table_artifact(table=checks, key="verdict", description=record.summary())
    links(record)


def links(record: Record) -> None:
    """Where the report, the run and the version are; `gme dashboard` serves the latter two."""
    found = record.registration
    version = f"{record.model_name} v{found.version}" if found.version else "none: the gate stayed closed"
    rows = {
        "Report": f"[{record.report.parent.name}]({record.report.resolve().as_uri()})",
        "MLflow run": f"`{found.run_id}`",
        "Version": version,
        "Champion": f"v{found.champion}" if found.champion else "none",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    create_markdown_artifact(markdown=f"| | |\n|---|---|\n{table}\n", key="links", description="Where to look next")
