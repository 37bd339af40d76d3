"""The funnel as a picture, the same bytes for the same counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gme_synthesis.stages import Tally


def plot_funnel(path: Path, tallies: Sequence[Tally]) -> None:
    """Draws a bar for each step: what it kept, and what it refused beside it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    steps = [tally.step for tally in tallies][::-1]  # matplotlib counts bars from below
    kept_counts = [tally.kept for tally in tallies][::-1]
    refused_counts = [sum(tally.rejected.values()) for tally in tallies][::-1]
    # The salt, the missing date and text as text (not as glyph outlines) make the bytes of the SVG reproducible.
    with plt.rc_context({"svg.hashsalt": "funnel", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7, 0.35 * len(steps) + 1), layout="constrained")
        axes.barh(steps, kept_counts, color="#2c4a7c", label="kept")
        axes.barh(steps, refused_counts, left=kept_counts, color="#d98c3f", label="refused")
        for row, (bar, refused) in enumerate(zip(kept_counts, refused_counts, strict=True)):
            axes.text(bar + refused, row, f" {bar:,}" + (f" + {refused:,}" if refused else ""), va="center")
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)
