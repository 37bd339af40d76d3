"""Builds a report: facts -> tables, plots, examples -> ``report.html``, ``report.md`` and ``scores.json``.

One template serves the page of a pipeline, with baselines and training curves, and that of any model on a suite.
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
from umrb.report.environment import page_environment
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
        config: Title of the page, and the command that it quotes.
        inputs: Folders ``corpus``, ``synthetic``, ``baselines``, ``evaluation``, ``model``.
        context: Its staging folder gets ``report.html``, ``report.md``, ``scores.json`` and ``plots/``.

    Returns:
        Counts: tasks, tasks where a baseline is ahead, bytes of the page.

    Raises:
        FoundryError: An input is missing or damaged, or does not match the others.
    """
    facts = read_pipeline(inputs)
    _, page = _write(config, facts, context.staging)
    lost = sum(row.lost for row in task_rows(facts))
    return {"tasks": len(facts.model.tasks), "tasks_lost": lost, "page_bytes": len(page.encode())}


def write_suite_report(suite: str, datasets: Sequence[Dataset], results: Path, output: Path) -> ReportScores:
    """Write the report of the results of one model on a suite.

    Returns:
        The contents of ``scores.json``.

    Raises:
        FoundryError: There are no results.
    """
    facts = read_suite(suite, datasets, results)
    output.mkdir(parents=True, exist_ok=True)
    # Processes that share a run end at the same time, and all of them write the report.
    with try_lock(output / ".lock", wait=True):
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
    suite_plots = {
        table.suite: (plot_datasets(table, plots), plot_heat(table, plots))
        for table in facts.suites
        if table.summary.datasets
    }
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            config=config,
            facts=facts,
            rows=rows,
            types=types,
            systems=[system.system for system in facts.baselines],
            recalls=_all_metrics(facts),
            overall=overall(facts.model.tasks),
            untrained=next((overall(scores.tasks) for scores in facts.baselines if scores.system == "untrained"), None),
            apart=_overall_by_subset(facts),
            verdict=sentences,
            losses=losses,
            controls=control_sentences(facts),
            inputs=input_rows(facts),
            gaps=gaps(by_modality(facts.samples)),
            published=published(),
            plots=_plots(facts, rows, types, plots),
            suite_plots={suite: [Markup(svg) for svg in svgs] for suite, svgs in suite_plots.items()},  # noqa: S704 - ours
            licences=_licences(facts),
            reported=REPORTED,
        )
    )


def _plots(facts: Facts, rows: Sequence[TaskRow], types: Sequence[TypeRow], folder: Path) -> dict[str, Markup | None]:
    plots = {
        "tasks": plot_tasks(rows, folder) if facts.baselines else None,
        "types": plot_types(types, folder) if facts.baselines else None,
        "curves": plot_curves(facts.curves, folder),
        "funnel": plot_funnel(facts.funnel, folder),
        "gap": plot_gap(by_modality(facts.samples), folder),
    }
    return {name: Markup(svg) if svg else None for name, svg in plots.items()}  # noqa: S704 - drawn here, not read


def _overall_by_subset(facts: Facts) -> dict[str, tuple[float, int]]:
    """Mean and number of the tasks of each subset: entities that were trained on, and others."""
    groups: dict[str, list[TaskScore]] = {}
    for task in facts.model.tasks:
        groups.setdefault(task.subset, []).append(task)
    return {name: (overall(group), len(group)) for name, group in sorted(groups.items()) if name}


def _all_metrics(facts: Facts) -> dict[str, dict[str, dict[str, float]]]:
    """All reported metrics by task and system, for the table of every number."""
    systems = [facts.model, *facts.baselines]
    return {
        task.name: {
            system.system: system.by_name[task.name].scores for system in systems if task.name in system.by_name
        }
        for task in facts.model.tasks
    }


def _licences(facts: Facts) -> list[tuple[str, int]]:
    """The licences of the tasks, with the number of tasks, the most frequent first."""
    counts = Counter(licence for record in facts.records.values() for licence in record.licences)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
