"""Puts a report together: facts -> tables, plots, examples -> ``report.html`` and its twins for programs.

One page for all: that of a pipeline, beside baselines and with its training, and that of any model on a suite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from gme_data.journal import atomic_write
from gme_data.locks import try_lock
from gme_data.scores import ReportScores, TaskScore, overall, write_report_scores
from gme_data.steps import StepContext
from umrb.config import REPORTED, ReportConfig
from umrb.registry import Dataset, published
from umrb.report.environment import environment
from umrb.report.facts import Facts, read_pipeline, read_suite
from umrb.report.gap import by_modality, gaps, plot_gap
from umrb.report.plots import plot_curves, plot_funnel, plot_tasks, plot_types
from umrb.report.suite_plots import plot_datasets, plot_heat
from umrb.report.tables import (
    TaskRow,
    TypeRow,
    control_sentences,
    input_rows,
    markdown,
    report_scores,
    task_rows,
    type_rows,
    verdict,
)


def build_report(config: ReportConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """The step `report`.

    Args:
        config: Title and command.
        inputs: Folders ``corpus``, ``synthetic``, ``baselines``, ``evaluation``, ``model``.
        context: Its staging folder gets ``report.html``, ``report.md``, ``scores.json`` and ``plots/``.

    Returns:
        Counts: tasks, tasks where a baseline is ahead, bytes of the page.

    Raises:
        FoundryError: An input is missing, damaged, or does not fit the others.
    """
    facts = read_pipeline(inputs)
    _, page = _write(config, facts, context.staging)
    lost = sum(row.lost for row in task_rows(facts))
    return {"tasks": len(facts.model.tasks), "tasks_lost": lost, "page_bytes": len(page.encode())}


def write_suite_report(suite: str, datasets: Sequence[Dataset], results: Path, output: Path) -> ReportScores:
    """Write the report of the results of one model on a suite.

    Returns:
        What ``scores.json`` holds.

    Raises:
        FoundryError: There are no results.
    """
    facts = read_suite(suite, datasets, results)
    output.mkdir(parents=True, exist_ok=True)
    with try_lock(output / ".lock", wait=True):  # processes that share a run end at the same time
        command = f"gme umrb run --suite {suite} --model {facts.label}"
        return _write(ReportConfig(title=suite, command=command), facts, output)[0]


def _write(config: ReportConfig, facts: Facts, folder: Path) -> tuple[ReportScores, str]:
    rows, types = task_rows(facts), type_rows(facts)
    scores = report_scores(facts, rows)
    page = _page(config, facts, rows, types, folder / "plots")
    write_report_scores(folder, scores)
    atomic_write(folder / "report.html", page.encode())
    atomic_write(folder / "report.md", markdown(facts, types).encode())
    return scores, page


def _page(config: ReportConfig, facts: Facts, rows: Sequence[TaskRow], types: Sequence[TypeRow], plots: Path) -> str:
    sentences, losses = verdict(rows) if facts.baselines else ([], [])
    drawn = {
        table.suite: (plot_datasets(table, plots), plot_heat(table, plots))
        for table in facts.suites
        if table.summary.datasets
    }
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            config=config,
            facts=facts,
            rows=rows,
            types=types,
            systems=[system.system for system in facts.baselines],
            recalls=_recalls(facts),
            overall=overall(facts.model.tasks),
            untrained=_overall_of(facts, "untrained"),
            apart=_seen_apart(facts),
            verdict=sentences,
            losses=losses,
            controls=control_sentences(facts),
            inputs=input_rows(facts),
            gaps=gaps(by_modality(facts.samples)),
            published=published(),
            plots=_plots(facts, rows, types, plots),
            suite_plots={suite: [Markup(svg) for svg in svgs] for suite, svgs in drawn.items()},  # noqa: S704 - ours
            licences=_licences(facts),
            reported=REPORTED,
        )
    )


def _plots(facts: Facts, rows: Sequence[TaskRow], types: Sequence[TypeRow], folder: Path) -> dict[str, Markup | None]:
    drawn = {
        "tasks": plot_tasks(rows, folder) if facts.baselines else None,
        "types": plot_types(types, folder) if facts.baselines else None,
        "curves": plot_curves(facts.curves, folder),
        "funnel": plot_funnel(facts.funnel, folder),
        "gap": plot_gap(by_modality(facts.samples), folder),
    }
    return {name: Markup(svg) if svg else None for name, svg in drawn.items()}  # noqa: S704 - drawn here, not read


def _overall_of(facts: Facts, system: str) -> float | None:
    return next((overall(scores.tasks) for scores in facts.baselines if scores.system == system), None)


def _seen_apart(facts: Facts) -> dict[str, tuple[float, int]]:
    """Mean and number of the tasks about entities that were trained on, and of those about others."""
    groups: dict[str, list[TaskScore]] = {}
    for task in facts.model.tasks:
        groups.setdefault(task.subset, []).append(task)
    return {name: (overall(group), len(group)) for name, group in sorted(groups.items()) if name}


def _recalls(facts: Facts) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> system -> all reported metrics, for the table of every number."""
    systems = [facts.model, *facts.baselines]
    return {
        task.name: {
            system.system: system.by_name[task.name].scores for system in systems if task.name in system.by_name
        }
        for task in facts.model.tasks
    }


def _licences(facts: Facts) -> list[tuple[str, int]]:
    """Licences that the tasks carry, with the number of tasks, the most frequent first."""
    counts = Counter(licence for record in facts.records.values() for licence in record.licences)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
