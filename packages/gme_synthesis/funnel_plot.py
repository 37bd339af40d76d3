"""The funnel as a picture, the same bytes for the same counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gme_synthesis.records import Tally


def plot_funnel(path: Path, tallies: Sequence[Tally]) -> None:
    """A bar for each step: what it kept, and what it refused beside it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    steps = [one.step for one in tallies][::-1]
    kept = [one.kept for one in tallies][::-1]
    refused = [sum(one.rejected.values()) for one in tallies][::-1]
    with plt.rc_context({"svg.hashsalt": "funnel", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7, 0.35 * len(steps) + 1), layout="constrained")
        axes.barh(steps, kept, color="#2c4a7c", label="kept")
        axes.barh(steps, refused, left=kept, color="#d98c3f", label="refused")
        for row, (some, others) in enumerate(zip(kept, refused, strict=True)):
            axes.text(some + others, row, f" {some:,}" + (f" + {others:,}" if others else ""), va="center")
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)
