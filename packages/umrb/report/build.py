"""Puts the report together: facts -> tables, plots, examples -> ``report.html``, ``scores.json``, ``plots/``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gme_data.steps import StepContext
from umrb.config import REPORTED, ReportConfig
from umrb.report.facts import Facts, read_facts
from umrb.report.gallery import build_gallery
from umrb.report.plots import plot_curves, plot_funnel, plot_tasks, plot_types
from umrb.report.tables import TaskRow, TypeRow, control_sentences, scores_json, task_rows, type_rows, verdict
from umrb.results import SCORES, overall
from umrb.tasks import NumberedTask, load_tasks, open_images

_TEMPLATES = Path(__file__).parent / "templates"


def build_report(config: ReportConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Write the report.

    Args:
        config: Title, examples.
        inputs: Folders ``corpus``, ``synthetic``, ``baselines``, ``evaluation``, ``model``.
        context: Its staging folder gets ``report.html``, ``scores.json`` and ``plots/``.

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
        _environment()
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
            verdict=sentences,
            losses=losses,
            controls=control_sentences(facts),
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
    }
    return {name: Markup(svg) if svg else None for name, svg in drawn.items()}  # noqa: S704 - drawn here, not read


def _overall_of(facts: Facts, system: str) -> float | None:
    return next((overall(scores.tasks) for scores in facts.baselines if scores.system == system), None)


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


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value: "·" if value is None else f"{value:.3f}"
    environment.filters["arrow"] = lambda kind: kind.replace("->", "→")
    environment.filters["metric"] = _metric_label
    environment.filters["thousands"] = lambda value: f"{value:,.0f}"
    return environment


def _metric_label(name: str) -> str:
    """``hit_rate_at_5`` -> ``R@5``, as the papers of the field print it."""
    kind, _, cutoff = name.partition("_at_")
    return f"{ {'hit_rate': 'R', 'ndcg': 'nDCG', 'mrr': 'MRR', 'map': 'MAP'}.get(kind, kind) }@{cutoff}"
