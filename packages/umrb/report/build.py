"""Puts the report together: facts -> tables, plots, examples -> ``report.html`` and its twins for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from gme_data.steps import StepContext
from umrb.config import REPORTED, ReportConfig
from umrb.registry import published
from umrb.report.environment import environment
from umrb.report.facts import Facts, read_facts
from umrb.report.gallery import build_gallery
from umrb.report.gap import by_modality, gaps, plot_gap
from umrb.report.plots import plot_curves, plot_funnel, plot_tasks, plot_types
from umrb.report.tables import (
    TaskRow,
    TypeRow,
    control_sentences,
    input_rows,
    markdown,
    scores_json,
    task_rows,
    type_rows,
    verdict,
)
from umrb.results import SCORES, TaskScore, overall
from umrb.tasks import NumberedTask, load_tasks, open_images


def build_report(config: ReportConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Write the report.

    Args:
        config: Title, examples.
        inputs: Folders ``corpus``, ``synthetic``, ``baselines``, ``evaluation``, ``model``.
        context: Its staging folder gets ``report.html``, ``report.md``, ``scores.json`` and ``plots/``.

    Returns:
        Counts: tasks, tasks where a baseline is ahead, bytes of the page.

    Raises:
        FoundryError: An input is missing, damaged, or does not fit the others.
    """
    folder = context.staging
    facts = read_facts(inputs)
    rows, types = task_rows(facts), type_rows(facts)
    (folder / SCORES).write_text(json.dumps(scores_json(facts, rows), indent=1) + "\n", encoding="utf-8")
    page = _page(config, facts, rows, types, folder)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "report.md").write_text(markdown(facts, types), encoding="utf-8")
    return {"tasks": len(rows), "tasks_lost": sum(row.lost for row in rows), "page_bytes": len(page.encode())}


def _page(
    config: ReportConfig,
    facts: Facts,
    rows: Sequence[TaskRow],
    types: Sequence[TypeRow],
    folder: Path,
) -> str:
    home = facts.folders["corpus"] / "tasks" / facts.split
    tasks = load_tasks(home, [row.score.name for row in rows])
    sentences, losses = verdict(rows)
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
            plots=_plots(facts, rows, types, folder / "plots"),
            gallery=build_gallery(facts, tasks, open_images(home), config),
            licences=_licences(tasks),
            reported=REPORTED,
        )
    )


def _plots(facts: Facts, rows: Sequence[TaskRow], types: Sequence[TypeRow], folder: Path) -> dict[str, Markup | None]:
    drawn = {
        "tasks": plot_tasks(rows, folder),
        "types": plot_types(types, folder),
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


def _licences(tasks: Sequence[NumberedTask]) -> list[tuple[str, int]]:
    """Licences of the documents of all tasks, the most frequent first."""
    counts = Counter(doc.licence for task in tasks for doc in task.docs)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
