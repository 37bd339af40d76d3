"""The report of a suite: results of one model -> ``report.html``, ``report.md``, ``scores.json``, ``plots/``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gme_data.journal import atomic_write
from gme_data.locks import taken
from umrb.registry import Dataset, type_order
from umrb.report.environment import environment, metric_label
from umrb.report.gap import by_modality, gaps, plot_gap
from umrb.report.suite_facts import SuiteFacts, read_suite
from umrb.report.suite_plots import plot_datasets, plot_heat


def write_suite_report(suite: str, datasets: Sequence[Dataset], results: Path, output: Path) -> dict[str, Any]:
    """Write the report of the results in ``results/<model>/<revision>``.

    Returns:
        What ``scores.json`` holds.

    Raises:
        FoundryError: There are no results.
    """
    facts = read_suite(suite, datasets, results)
    output.mkdir(parents=True, exist_ok=True)
    found = as_json(facts)
    with taken(output / ".lock", wait=True):  # processes that share a run end at the same time
        atomic_write(output / "scores.json", (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
        atomic_write(output / "report.html", _page(facts, output / "plots").encode())
        atomic_write(output / "report.md", markdown(facts).encode())
    return found


def as_json(facts: SuiteFacts) -> dict[str, Any]:
    """The machine-readable twin of the page; scores in 0..1, published ones apart and in percent."""
    return {
        "suite": facts.suite,
        "model": facts.model,
        "revision": facts.revision,
        "complete": facts.summary.complete,
        "total": facts.summary.total,
        "types": {
            kind: {"mean": mean.value, "scored": mean.scored, "of": mean.expected}
            for kind, mean in facts.summary.types.items()
        },
        "datasets": {
            row.dataset.id: {
                "task_type": row.dataset.task_type,
                "metric": row.dataset.metric,
                "value": row.value,
                "interval": row.interval,
                "queries": row.queries,
                "pool": row.pool,
                "defects": row.defects,
                "published": row.published,
            }
            for row in facts.rows
        },
        "modality_gap": {"-".join(gap.pair): gap.distance for gap in gaps(by_modality(facts.samples))},
        "cost": {"seconds": facts.seconds, "encoded": facts.encoded, "asked": facts.contents},
    }


def markdown(facts: SuiteFacts) -> str:
    """The tables of the page, for a pull request or a model card."""
    kinds = type_order(row.dataset for row in facts.rows)
    head = ["model", *(kind.replace("->", "→") for kind in kinds), f"all {facts.summary.expected}"]
    rows = [
        [f"{row.model} (published)", *(f"{row.types[kind]:.2f}" for kind in kinds), f"{row.average:.2f}"]
        for row in facts.published
    ]
    means = [facts.summary.types[kind] for kind in kinds]
    total = _percent(facts.summary.total)
    rows.append([f"**{facts.model}**", *(_cell(mean.value, mean.scored, mean.expected) for mean in means), total])
    datasets = [
        [
            row.dataset.name,
            row.dataset.task_type.replace("->", "→"),
            metric_label(row.dataset.metric),
            _percent(row.value),
            f"{100 * row.interval[0]:.2f} to {100 * row.interval[1]:.2f}" if row.interval else "",
            ", ".join(f"{model} {value:.2f}" for model, value in row.published.items()),
            "; ".join(row.defects),
        ]
        for row in facts.rows
    ]
    some = f"{len(facts.summary.datasets)} of {facts.summary.expected} datasets are scored"
    note = [] if facts.summary.complete else [f"{some}: the mean does not stand beside a published one.", ""]
    labels = ["dataset", "type", "metric", "score", "95 %", "published", "defects of the data"]
    return "\n".join(
        [
            *(f"# {facts.suite}: {facts.model}", "", f"Revision `{facts.revision}`. Percent.", "", *note),
            *(*_table(head, rows), "", *_table(labels, datasets), ""),
        ]
    )


def _page(facts: SuiteFacts, plots: Path) -> str:
    vectors = by_modality(facts.samples)
    drawn = {
        "datasets": plot_datasets(facts, plots) if facts.summary.datasets else None,
        "heat": plot_heat(facts, plots) if facts.summary.datasets else None,
        "gap": plot_gap(vectors, plots),
    }
    return (
        environment()
        .get_template("suite.html.j2")
        .render(
            facts=facts,
            kinds=type_order(row.dataset for row in facts.rows),
            plots={name: Markup(svg) if svg else None for name, svg in drawn.items()},  # noqa: S704 - drawn here
            gaps=gaps(vectors),
            published_models=sorted({model for row in facts.rows for model in row.published}),
        )
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _percent(value: float | None) -> str:
    return "·" if value is None else f"{100 * value:.2f}"


def _cell(value: float | None, scored: int, expected: int) -> str:
    return _percent(value) + (f" ({scored}/{expected})" if value is not None and scored < expected else "")
