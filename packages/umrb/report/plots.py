"""The plots of the report. Each function returns an inline SVG, or None if there is nothing to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gme_data.funnel import FunnelStep
from umrb.report.figures import BLUE, CYCLE, GREY, ORANGE, drawing, save_figure
from umrb.report.tables import TaskRow, TypeRow

_SMOOTHING = 9
"""Points that the running mean of a loss curve covers."""
_MARKERS_BELOW = 3
"""Lines of fewer points get markers, without which they are hardly visible."""


def plot_tasks(rows: Sequence[TaskRow], folder: Path) -> str:
    """Plot for each task the model with its interval, its best baseline, and the untrained model."""
    data = [
        {
            "task": row.score.name,
            "metric": row.score.metric,
            "model": row.score.value,
            "low": row.score.interval[0],
            "high": row.score.interval[1],
            "best_baseline": row.best_baseline[1] if row.best_baseline else None,
            "best_baseline_name": row.best_baseline[0] if row.best_baseline else None,
            "untrained": row.baselines.get("untrained"),
        }
        for row in rows
    ]
    with drawing():
        figure = Figure(figsize=(8.4, 0.34 * len(rows) + 0.9))
        axes = figure.subplots()
        _draw_tasks(axes, rows)
        return save_figure(figure, folder, "tasks", data)


def _draw_tasks(axes: Axes, rows: Sequence[TaskRow]) -> None:
    y = np.arange(len(rows))
    values = np.array([row.score.value for row in rows])
    errors = np.array(
        [[row.score.value - row.score.interval[0], row.score.interval[1] - row.score.value] for row in rows]
    )
    best = np.array([row.best_baseline[1] if row.best_baseline else np.nan for row in rows])
    axes.hlines(y, np.minimum(values, best), np.maximum(values, best), color=GREY, linewidth=1, alpha=0.5)
    untrained = np.array([row.baselines.get("untrained") for row in rows], dtype=np.float64)  # None becomes NaN
    known = ~np.isnan(untrained)
    axes.scatter(untrained[known], y[known], marker="|", s=70, color=GREY, label="untrained model")
    axes.scatter(best, y, marker="D", s=26, color=ORANGE, label="best baseline", zorder=3)
    axes.errorbar(
        values,
        y,
        # A percentile interval need not contain the mean, and matplotlib refuses negative errors.
        xerr=np.maximum(errors.T, 0),
        fmt="o",
        color=BLUE,
        markersize=6,
        capsize=0,
        label="model, 95 % interval",
    )
    axes.set_yticks(y, [row.score.name for row in rows])
    axes.set_xlim(-0.02, 1.02)
    # Upside down, so that the first task is on top.
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("headline metric of the task")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def plot_types(rows: Sequence[TypeRow], folder: Path) -> str:
    """Plot a heat map of systems by task types. A cell is grey if the system cannot see both sides."""
    systems = ["model", *rows[0].baselines]
    values = [[row.value if name == "model" else row.baselines[name] for row in rows] for name in systems]
    data = [
        {"system": name, **{row.task_type: value for row, value in zip(rows, line, strict=True)}}
        for name, line in zip(systems, values, strict=True)
    ]
    with drawing():
        figure = Figure(figsize=(8.4, 0.42 * len(systems) + 0.6))
        axes = figure.subplots()
        grid = np.array([[np.nan if value is None else value for value in line] for line in values], dtype=np.float64)
        axes.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (line, column), value in np.ndenumerate(grid):
            text = "·" if np.isnan(value) else f"{value:.2f}"
            colour = GREY if np.isnan(value) else "white" if value < 0.55 else "black"
            axes.text(column, line, text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(rows)), [row.task_type.replace("->", "→") for row in rows])
        axes.set_yticks(range(len(systems)), systems)
        axes.xaxis.tick_top()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        return save_figure(figure, folder, "types", data)


def plot_curves(points: Sequence[dict[str, Any]], folder: Path) -> str | None:
    """Plot the loss by step, with one panel per phase of training and one line per source of examples."""
    usable = [point for point in points if isinstance(point.get("loss"), (int, float)) and "step" in point]
    if not usable:
        return None
    panels = list(dict.fromkeys(_panel(point) for point in usable))
    sources = sorted({str(point.get("source") or "all") for point in usable})
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    data = [
        {key: point.get(key) for key in ("stage", "phase", "source", "step", "loss", "accuracy")} for point in usable
    ]
    with drawing():
        figure = Figure(figsize=(8.4, 2.6 * lines + 0.5))
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, panel, [point for point in usable if _panel(point) == panel], sources)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        handles = {
            label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if len(sources) > 1:
            figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)
        figure.tight_layout()
        return save_figure(figure, folder, "curves", data)


def _panel(point: dict[str, Any]) -> str:
    return " · ".join(str(point[key]) for key in ("stage", "phase") if point.get(key) is not None) or "training"


def _draw_panel(axes: Axes, title: str, points: Sequence[dict[str, Any]], sources: Sequence[str]) -> None:
    for number, source in enumerate(sources):
        line = sorted((int(p["step"]), float(p["loss"])) for p in points if str(p.get("source") or "all") == source)
        if not line:
            continue
        steps, losses = np.array(line).T
        dashes = ("-", "--", ":")[number // len(CYCLE) % 3]
        marker = "o" if len(steps) < _MARKERS_BELOW else ""
        axes.plot(
            steps, _smooth(losses), color=CYCLE[number % len(CYCLE)], linestyle=dashes, marker=marker, label=source
        )
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over the last `_SMOOTHING` values; at the start, over those that exist."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - _SMOOTHING, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def plot_funnel(stages: Sequence[FunnelStep], folder: Path) -> str | None:
    """Plot how many examples synthesis kept and rejected at each step."""
    if not stages:
        return None
    data = [
        {"step": stage.step, "in": stage.seen, "kept": stage.kept, "rejected": sum(stage.rejected.values())}
        for stage in stages
    ]
    with drawing():
        figure = Figure(figsize=(8.4, 0.4 * len(stages) + 0.8))
        axes = figure.subplots()
        y = np.arange(len(stages))
        kept = np.array([stage.kept for stage in stages])
        rejected = np.array([sum(stage.rejected.values()) for stage in stages])
        axes.barh(y, kept, color=BLUE, height=0.62, label="kept")
        axes.barh(y, rejected, left=kept, color=ORANGE, height=0.62, alpha=0.75, label="rejected")
        for position, stage in enumerate(stages):
            end = (stage.kept + sum(stage.rejected.values()), position)
            axes.annotate(f"{stage.kept:,}", end, xytext=(5, 0), textcoords="offset points", va="center")
        axes.set_yticks(y, [stage.step for stage in stages])
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return save_figure(figure, folder, "funnel", data)
