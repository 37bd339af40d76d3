"""The training curves of a stage: ``curves.json``, and its plots ``loss.svg`` and ``curves.svg``.

Speed and memory are not among them, since equal training must write equal bytes. Where that does not matter,
`read_curve` can read them too, and `plot_curves` plots them. Knows events; not what is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gme_data.events import read_events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[dict[str, Any]]
"""One entry for each step, with its number and its metrics."""
_METRICS = (
    "phase",
    "source",
    "batch",
    "loss",
    "accuracy",
    "similarity",
    "negative_similarity",
    "temperature",
    "gradient_norm",
    "text_rate",
    "vision_rate",
    "computed_to_real",
)
"""The metrics of a step that are functions of the training alone, by their names in the events."""
_TEXT_METRICS = ("phase", "source", "batch")
"""The metrics that are texts; the others are numbers."""
_SPEED_METRICS = ("pairs_per_second", "tokens_per_second", "peak_memory")
"""The metrics of a step that differ from run to run."""
_WINDOW = 8
"""The number of steps in a running mean."""
_POINTS = 800
"""The number of points of a plotted line from which points are left out."""
# Okabe and Ito's palette, which is readable with any colour vision; from the eighth line on the dashes change.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
_INK, _FAINT, _RULE = "#444444", "#888888", "#dddddd"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "curves",  # ids of an SVG are random without it
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same widths on every machine
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of ``curves.svg``.

    Attributes:
        title: The title.
        unit: The label of the y axis.
        lines: The metric and the label of each line; a single line without a label stands for one line per source.
        scale: The scale of the y axis.
        factor: Values are multiplied by it.
        smooth: Whether running means are plotted, and the values faintly behind them.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    scale: str = "linear"
    factor: float = 1.0
    smooth: bool = True


PANELS = (
    Panel("Loss of each source", "nats", (("loss", ""),)),
    Panel("Accuracy in the batch of each source", "share of queries", (("accuracy", ""),)),
    Panel("Similarity to the query", "cosine", (("similarity", "positives"), ("negative_similarity", "negatives"))),
    Panel("Gradient norm before clipping", "L2 norm", (("gradient_norm", "all sources"),), scale="log"),
    Panel("Learning rates", "rate", (("text_rate", "language part"), ("vision_rate", "vision tower")), smooth=False),
    Panel("Tokens computed for each real one", "ratio", (("computed_to_real", "all sources"),)),
    Panel("Speed", "pairs per second", (("pairs_per_second", "all sources"),)),
    Panel("Peak memory of rank 0", "GiB", (("peak_memory", "all sources"),), factor=2**-30, smooth=False),
)
"""The plots of `plot_curves`; those without data are left out."""


def read_curve(events: Path, *, speed: bool = False) -> Curve:
    """Reads one entry for each step, in order.

    A damaged line, or one that lacks a metric, is left out: a caller that knows the number of steps sees that one is
    missing.

    Args:
        events: ``events.jsonl``, or the history of a run.
        speed: Also reads pairs and tokens a second and memory, which differ from run to run.
    """
    metrics = (*_METRICS, *(_SPEED_METRICS if speed else ()))
    # A resumed run repeats the steps after its checkpoint: the last event of a step counts.
    by_step = {event["step"]: event for event in read_events(events, "step") if _is_complete(event, ("step", *metrics))}
    return [{"step": step, **{name: by_step[step][name] for name in metrics}} for step in sorted(by_step)]


def _is_complete(event: dict[str, Any], metrics: Sequence[str]) -> bool:
    return all(isinstance(event.get(name), (str,) if name in _TEXT_METRICS else (int, float)) for name in metrics)


def write_curves(folder: Path, curve: Curve) -> None:
    """Writes ``curves.json`` (``{"series": curve}``), ``loss.svg`` and ``curves.svg``."""
    (folder / "curves.json").write_text(json.dumps({"series": curve}, indent=0) + "\n", encoding="utf-8")
    plot_loss(folder / "loss.svg", curve)
    plot_curves(folder / "curves.svg", curve)


def plot_loss(path: Path, curve: Curve) -> None:
    """Plots the running mean of the loss of each source; vertical lines divide the phases."""
    with _figure(path, (9, 4.5)) as figure:
        axes = figure.subplots()
        _plot_sources(axes, curve, "loss")
        _mark_phases(axes, curve, named=True)
        axes.set(xlabel="step", ylabel=f"loss (mean of the last {_WINDOW} steps of a source)")
        axes.legend(fontsize="x-small", ncols=2)


def plot_curves(path: Path, curve: Curve) -> None:
    """Plots the panels that `curve` has data for, two in a row, over the same steps."""
    panels = [panel for panel in PANELS if all(name in entry for entry in curve for name, _ in panel.lines)]
    rows = max(-(-len(panels) // 2), 1)
    with _figure(path, (9.5, 2.1 * rows + 0.8)) as figure:
        grid = figure.subplots(rows, 2, sharex=True, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number < len(panels):
                _plot_panel(axes, panels[number], curve)
                _mark_phases(axes, curve, named=number < 2)
            else:
                axes.set_visible(False)
        for axes in list(grid.flat)[max(len(panels) - 2, 0) : len(panels)]:
            axes.set_xlabel("optimizer step")
            axes.tick_params(labelbottom=True)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Yields a figure and saves it, as the same bytes for the same data."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        # Without the date, which would make every file differ.
        figure.savefig(path, format="svg", metadata={"Date": None})


def _plot_panel(axes: Axes, panel: Panel, curve: Curve) -> None:
    axes.set(title=panel.title, ylabel=panel.unit, yscale=panel.scale)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    if panel.scale == "linear":
        axes.yaxis.set_major_formatter("{x:g}")
    if not panel.lines[0][1]:
        _plot_sources(axes, curve, panel.lines[0][0])
        return
    lines = []
    for (metric, name), colour in zip(panel.lines, _COLOURS, strict=False):
        values = [entry[metric] * panel.factor for entry in curve]
        if panel.smooth:
            axes.plot(*_line(curve, values), color=colour, alpha=0.25, linewidth=0.6)
            values = _running_mean(curve, values)
        lines.append(_line(curve, values))
        axes.plot(*lines[-1], color=colour, label=name, marker="o" if len(curve) == 1 else "")
    if panel.unit == "cosine":
        (steps, upper), (_, lower) = lines
        axes.fill_between(steps, upper, lower, color=_RULE, alpha=0.6, linewidth=0, label="gap")
    if len(panel.lines) > 1:
        axes.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0, borderaxespad=0.2)


def _plot_sources(axes: Axes, curve: Curve, metric: str) -> None:
    """Plots the running mean of a metric, a line for each source."""
    for number, source in enumerate(sorted({entry["source"] for entry in curve})):
        of_source = [entry for entry in curve if entry["source"] == source]
        means = _running_mean(of_source, [entry[metric] for entry in of_source])
        colour, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
        marker = "o" if len(of_source) == 1 else ""
        axes.plot(*_line(of_source, means), color=colour, linestyle=dashes, label=source, marker=marker)


def _running_mean(curve: Curve, values: list[float]) -> list[float]:
    """Returns the mean of the last values of the same phase, for each entry."""
    means: list[float] = []
    recent: list[float] = []
    phase = None
    for entry, value in zip(curve, values, strict=True):
        recent = [*recent, value][-_WINDOW:] if entry["phase"] == phase else [value]
        phase = entry["phase"]
        means.append(math.fsum(recent) / len(recent))
    return means


def _line(curve: Curve, values: list[float]) -> tuple[list[float], list[float]]:
    """Returns the steps and the values of a line, with a gap between phases.

    Of a long run only some points are returned: more can't be seen, and the files stay small.
    """
    every = -(-len(curve) // _POINTS)
    steps: list[float] = []
    plotted: list[float] = []
    for number, (entry, value) in enumerate(zip(curve, values, strict=True)):
        starts_phase = number > 0 and entry["phase"] != curve[number - 1]["phase"]
        if starts_phase:
            steps.append(entry["step"] - 0.5)
            plotted.append(math.nan)
        if starts_phase or number % every == 0 or number == len(curve) - 1:
            steps.append(entry["step"])
            plotted.append(value)
    return steps, plotted


def _mark_phases(axes: Axes, curve: Curve, *, named: bool) -> None:
    """Draws a vertical line where a phase begins, and its name at the top."""
    starts = [after["step"] for before, after in pairwise(curve) if before["phase"] != after["phase"]]
    for start in starts:
        axes.axvline(start - 0.5, color=_FAINT, linewidth=0.8, linestyle=":")
    if named:
        for entry in [*curve[:1], *(entry for entry in curve if entry["step"] in starts)]:
            axes.annotate(
                entry["phase"],
                (entry["step"], 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                color=_FAINT,
            )
