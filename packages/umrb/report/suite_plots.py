"""The plots of a published suite. Each returns an inline SVG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from umrb.report.figures import BLUE, GREY, ORANGE, drawing, save_figure
from umrb.report.suite_table import SuiteTable

_DARK_BELOW = 55
"""From this percentage on, black text is read better than white on the colours of cividis."""


def plot_datasets(table: SuiteTable, folder: Path) -> str:
    """Plot a bar for each scored dataset, with its interval, and the published score where there is one."""
    rows = [row for row in table.rows if row.value is not None and row.interval is not None]
    data = [
        {
            "dataset": row.dataset.id,
            "task_type": row.dataset.task_type,
            "metric": row.dataset.metric,
            "value": row.value,
            "low": row.interval[0] if row.interval else None,
            "high": row.interval[1] if row.interval else None,
            **{f"published {model}": row.dataset.published.get(model) for model in ("GME", "GME-2B", "GME-7B")},
        }
        for row in rows
    ]
    y = np.arange(len(rows))
    values = np.array([100 * (row.value or 0) for row in rows])
    ends = np.array([row.interval or (0.0, 0.0) for row in rows]).T * 100
    with drawing():
        figure = Figure(figsize=(8.4, 0.27 * len(rows) + 1.0))
        axes = figure.subplots()
        axes.barh(y, values, height=0.62, color=BLUE, alpha=0.75, label="this model, 95 % interval")
        # The published markers come last, so that they lie above bars and intervals.
        axes.errorbar(values, y, xerr=np.maximum(np.abs(ends - values), 0), fmt="none", ecolor=GREY, elinewidth=1.3)
        for model, marker in (("GME-7B", "D"), ("GME-2B", "|"), ("GME", "d")):
            published = [
                (row.dataset.published[model], position)
                for row, position in zip(rows, y, strict=True)
                if model in row.dataset.published
            ]
            if published:
                x, positions = zip(*published, strict=True)
                axes.scatter(x, positions, marker=marker, s=26, color=ORANGE, zorder=3, label=f"{model}, published")
        axes.set_yticks(y, [f"{row.dataset.name}  {row.dataset.task_type.replace('->', '→')}" for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("headline metric of the dataset, percent")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return save_figure(figure, folder, f"{table.anchor}-datasets", data)


def plot_heat(table: SuiteTable, folder: Path) -> str:
    """Plot a heat map of models by task types, with this model below the published rows."""
    task_types = table.task_types
    lines = [
        (f"{row.model} (published)", [row.types.get(task_type) for task_type in task_types]) for row in table.published
    ]
    model_means = [table.summary.types[task_type].mean for task_type in task_types]
    ours = (table.model, [None if value is None else 100 * value for value in model_means])
    data = [{"model": name, **dict(zip(task_types, values, strict=True))} for name, values in (*lines, ours)]
    with drawing():
        figure = Figure(figsize=(8.4, 0.42 * (len(lines) + 1) + 0.8))
        sizes = {"height_ratios": [len(lines), 1]} if lines else {"height_ratios": [1]}
        grid = figure.subplots(len(sizes["height_ratios"]), 1, squeeze=False, gridspec_kw={**sizes, "hspace": 0.12})
        for number, (axes, block) in enumerate(zip(grid.flat, [lines, [ours]] if lines else [[ours]], strict=True)):
            cells = np.array([[np.nan if v is None else v for v in values] for _, values in block], dtype=np.float64)
            axes.imshow(cells, cmap="cividis", vmin=0, vmax=100, aspect="auto")
            for (line, column), value in np.ndenumerate(cells):
                text = "·" if np.isnan(value) else f"{value:.1f}"
                colour = GREY if np.isnan(value) else "white" if value < _DARK_BELOW else "black"
                axes.text(column, line, text, ha="center", va="center", color=colour)
            axes.set_xticks(
                range(len(task_types)),
                [task_type.replace("->", "→") for task_type in task_types] if number == 0 else [],
            )
            axes.set_yticks(range(len(block)), [name for name, _ in block])
            axes.xaxis.tick_top()
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        return save_figure(figure, folder, f"{table.anchor}-types", data)
