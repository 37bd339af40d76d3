"""Artifacts of a run for Prefect's UI: funnel, validation, training, scores, verdict. They decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from gme_data.steps import Outcome, Step
from gme_data.structured import read_json

if TYPE_CHECKING:
    from flows.run_record import RunRecord


def artifact_of(step: Step) -> Callable[[Outcome], None] | None:
    """Returns the function that makes the artifact of a step, by the role of its output; None if there is none."""
    if step.role == "dataset":
        return funnel if step.section == "synthesis" else None
    return {"validation": validation, "model": training, "report": scores}.get(step.role)


def funnel(outcome: Outcome) -> None:
    """Shows how many candidates each step of synthesis kept and rejected."""
    create_table_artifact(
        table=read_json(outcome.folder / "funnel.json", dict[str, Any])["steps"], key="funnel", description="Synthesis"
    )


def validation(outcome: Outcome) -> None:
    """Shows which expectation suites were checked, and where their pages are."""
    verdict = read_json(outcome.folder / "verdict.json", dict[str, Any])
    docs = (outcome.folder / verdict["docs"]).resolve()  # a path that people can open from Prefect's page
    create_table_artifact(
        table=verdict["results"],
        key="validation",
        description=f"{verdict['expectations']} expectations in {verdict['suites']} suites; Data Docs: {docs}",
    )


def training(outcome: Outcome) -> None:
    """Shows the counts of a training stage."""
    rows = [f"| {name.replace('_', ' ')} | {value:,.6g} |" for name, value in outcome.manifest.counts.items()]
    counts = "\n".join(rows)
    create_markdown_artifact(
        markdown=f"## {outcome.step}\n\n| | |\n|---|---|\n{counts}\n",
        key=outcome.step,
        description=f"{outcome.manifest.seconds:.0f} s",
    )


def scores(outcome: Outcome) -> None:
    """Shows the scores of all tasks beside those of the baselines."""
    report = read_json(outcome.folder / "scores.json", dict[str, Any])
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
        for task in report["tasks"]
    ]
    create_table_artifact(table=rows, key="scores", description=f"Overall {report['overall']:.3f}")


def verdict(record: RunRecord) -> None:
    """Shows the gate's decision, check by check."""
    checks = [
        {"check": check.name, "passed": check.passed, "detail": check.detail}
        for check in record.registration.verdict.checks
    ]
    create_table_artifact(table=checks, key="verdict", description=record.summary())
    links(record)


def links(record: RunRecord) -> None:
    """Shows where report, run and version are; `gme dashboard` serves the latter two."""
    registration = record.registration
    version = f"{record.model_name} v{registration.version}" if registration.version else "none: the gate stayed closed"
    rows = {
        "Report": f"[{record.report.parent.name}]({record.report.resolve().as_uri()})",
        "MLflow run": f"`{registration.run_id}`",
        "Version": version,
        "Champion": f"v{registration.champion}" if registration.champion else "none",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    create_markdown_artifact(markdown=f"| | |\n|---|---|\n{table}\n", key="links", description="Where to look next")
