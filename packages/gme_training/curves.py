"""What a stage leaves to look at: ``curves.json``, and the plots drawn from it, ``loss.svg`` and ``curves.svg``.

How fast it went and what memory it took is not among them: equal training must leave equal bytes. Where that does not
matter, `read_curve` reads it too, and `plot_curves` draws it. Knows events; not what is trained.
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
_MEASURES = (
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
_WORDS = ("phase", "source", "batch")
_SPEED = ("pairs_per_second", "tokens_per_second", "peak_memory")
_SMOOTH = 8
_POINTS = 800
"""Of a line."""
# Okabe & Ito's palette: told apart with any colour vision; from the eighth line on the dashes change.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
_INK, _FAINT, _RULE = "#444444", "#888888", "#dddddd"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "curves",
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
    """One of the small plots.

    Attributes:
        title: Above it.
        unit: Beside its axis.
        lines: Measure and name of each line; one line for each source if there is only an unnamed one.
        scale: Of its axis.
        factor: Of the values.
        smooth: Show running means, and the values faintly behind them.
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
"""What `plot_curves` shows, as far as there is data."""


def read_curve(events: Path, *, speed: bool = False) -> Curve:
    """One entry per step, in order. Steps that a resumed run did again count as the last run did them.

    A line that is damaged, or lacks a measure, is no step: whoever knows how many there were sees that one is missing.

    Args:
        events: ``events.jsonl``, or the history of a run.
        speed: Also pairs and tokens a second and memory, which differ from run to run.
    """
    wanted = (*_MEASURES, *(_SPEED if speed else ()))
    by_step = {event["step"]: event for event in read_events(events, "step") if _is_whole(event, ("step", *wanted))}
    return [{"step": step, **{name: by_step[step][name] for name in wanted}} for step in sorted(by_step)]


def _is_whole(event: dict[str, Any], wanted: Sequence[str]) -> bool:
    return all(isinstance(event.get(name), (str,) if name in _WORDS else (int, float)) for name in wanted)


def write_curves(folder: Path, curve: Curve) -> None:
    """Write ``curves.json`` (``{"series": curve}``), ``loss.svg`` and ``curves.svg``."""
    (folder / "curves.json").write_text(json.dumps({"series": curve}, indent=0) + "\n", encoding="utf-8")
    plot_loss(folder / "loss.svg", curve)
    plot_curves(folder / "curves.svg", curve)


def plot_loss(path: Path, curve: Curve) -> None:
    """Running mean of the loss over each source's last steps, one line per source, phases divided by lines."""
    with _drawing(path, (9, 4.5)) as figure:
        axes = figure.subplots()
        _draw_sources(axes, curve, "loss")
        _mark_phases(axes, curve, named=True)
        axes.set(xlabel="step", ylabel=f"loss (mean of the last {_SMOOTH} steps of a source)")
        axes.legend(fontsize="x-small", ncols=2)


def plot_curves(path: Path, curve: Curve) -> None:
    """The panels that `curve` has data for, two beside each other, over the same steps."""
    panels = [panel for panel in PANELS if all(name in entry for entry in curve for name, _ in panel.lines)]
    rows = max(-(-len(panels) // 2), 1)
    with _drawing(path, (9.5, 2.1 * rows + 0.8)) as figure:
        grid = figure.subplots(rows, 2, sharex=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place < len(panels):
                _draw_panel(axes, panels[place], curve)
                _mark_phases(axes, curve, named=place < 2)
            else:
                axes.set_visible(False)
        for axes in list(grid.flat)[max(len(panels) - 2, 0) : len(panels)]:
            axes.set_xlabel("optimizer step")
            axes.tick_params(labelbottom=True)
        _name_sources(figure, grid[0, 0])


@contextmanager
def _drawing(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure that is saved in the end, as the same bytes for the same data."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_panel(axes: Axes, panel: Panel, curve: Curve) -> None:
    axes.set(title=panel.title, ylabel=panel.unit, yscale=panel.scale)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    if panel.scale == "linear":
        axes.yaxis.set_major_formatter("{x:g}")
    if not panel.lines[0][1]:
        _draw_sources(axes, curve, panel.lines[0][0])
        return
    drawn = []
    for (measure, name), colour in zip(panel.lines, _COLOURS, strict=False):
        values = [entry[measure] * panel.factor for entry in curve]
        if panel.smooth:
            axes.plot(*_line(curve, values), color=colour, alpha=0.25, linewidth=0.6)
            values = _running_mean(curve, values)
        drawn.append(_line(curve, values))
        axes.plot(*drawn[-1], color=colour, label=name, marker="o" if len(curve) == 1 else "")
    if panel.unit == "cosine":
        (steps, upper), (_, lower) = drawn
        axes.fill_between(steps, upper, lower, color=_RULE, alpha=0.6, linewidth=0, label="gap")
    if len(panel.lines) > 1:
        axes.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0, borderaxespad=0.2)


def _draw_sources(axes: Axes, curve: Curve, measure: str) -> None:
    """A line for each source: the mean of its last steps."""
    for number, source in enumerate(sorted({entry["source"] for entry in curve})):
        own = [entry for entry in curve if entry["source"] == source]
        means = _running_mean(own, [entry[measure] for entry in own])
        colour, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
        marker = "o" if len(own) == 1 else ""
        axes.plot(*_line(own, means), color=colour, linestyle=dashes, label=source, marker=marker)


def _running_mean(curve: Curve, values: list[float]) -> list[float]:
    """Of the last values of the same phase."""
    means: list[float] = []
    recent: list[float] = []
    phase = None
    for entry, value in zip(curve, values, strict=True):
        recent = [*recent, value][-_SMOOTH:] if entry["phase"] == phase else [value]
        phase = entry["phase"]
        means.append(math.fsum(recent) / len(recent))
    return means


def _line(curve: Curve, values: list[float]) -> tuple[list[float], list[float]]:
    """Steps and values, with a gap between phases; of a long run only some: nobody sees more, and files stay small."""
    every = -(-len(curve) // _POINTS)
    steps: list[float] = []
    shown: list[float] = []
    for place, (entry, value) in enumerate(zip(curve, values, strict=True)):
        starts = place > 0 and entry["phase"] != curve[place - 1]["phase"]
        if starts:
            steps.append(entry["step"] - 0.5)
            shown.append(math.nan)
        if starts or place % every == 0 or place == len(curve) - 1:
            steps.append(entry["step"])
            shown.append(value)
    return steps, shown


def _mark_phases(axes: Axes, curve: Curve, *, named: bool) -> None:
    """A line where a phase begins, and its name at the top."""
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


def _name_sources(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
