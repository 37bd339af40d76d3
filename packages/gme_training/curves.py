"""What a stage leaves to look at: ``curves.json`` and the loss plot drawn from it."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from gme_data.events import read_events

_MEASURES = (
    "phase",
    "source",
    "batch",
    "loss",
    "accuracy",
    "similarity",
    "negative_similarity",
    "gradient_norm",
    "text_rate",
    "vision_rate",
)
_SMOOTH = 8


def read_curve(events: Path) -> list[dict[str, Any]]:
    """One entry per step, in order. Steps that a resumed run did again count as the last run did them."""
    by_step = {event["step"]: event for event in read_events(events, "step")}
    return [{"step": step, **{name: by_step[step][name] for name in _MEASURES}} for step in sorted(by_step)]


def write_curves(folder: Path, curve: list[dict[str, Any]]) -> None:
    """Write ``curves.json`` (``{"series": curve}``) and ``loss.svg``."""
    (folder / "curves.json").write_text(json.dumps({"series": curve}, indent=0) + "\n", encoding="utf-8")
    plot_loss(folder / "loss.svg", curve)


def plot_loss(path: Path, curve: list[dict[str, Any]]) -> None:
    """Running mean of the loss over each source's last steps, one line per source, phases divided by lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    recent: defaultdict[str, list[float]] = defaultdict(list)
    for entry in curve:
        recent[entry["source"]] = [*recent[entry["source"]], entry["loss"]][-_SMOOTH:]
        mean = sum(recent[entry["source"]]) / len(recent[entry["source"]])
        lines[entry["source"]].append((entry["step"], mean))
    with mpl.rc_context({"svg.hashsalt": "loss", "font.family": "DejaVu Sans"}):
        figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
        for source in sorted(lines):
            axes.plot(*zip(*lines[source], strict=True), label=source, linewidth=1.4)
        for before, after in pairwise(curve):
            if before["phase"] != after["phase"]:
                axes.axvline(after["step"], color="0.8", linewidth=1)
        axes.set(xlabel="step", ylabel=f"loss (mean of the last {_SMOOTH} steps of a source)")
        axes.legend(fontsize="x-small", ncols=2)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
