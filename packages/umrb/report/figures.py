"""The style of every plot, and the files of a plot: SVG, PNG and its data. Knows nothing of what is plotted."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe & Ito's palette, whose colours can be distinguished with any colour vision, on white and on black.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
GREY = "#8b929c"
CYCLE = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY)

_INK = "#21262d"
_RULE = "#d5d9df"
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so texts have the same widths on every machine
    "font.size": 9,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw everything inside the `with` block in the style of the report."""
    with mpl.rc_context(_STYLE):
        yield


def save_figure(figure: Figure, folder: Path, name: str, data: Sequence[Mapping[str, object]]) -> str:
    """Write ``name.svg``, ``name.png`` and ``name.csv``.

    Args:
        figure: The figure.
        folder: Folder that gets the files.
        name: Stem of the files, and prefix of the SVG's ids, so that several plots can share a page.
        data: The plotted data; all rows have the keys of the first.

    Returns:
        The plot as an inline ``<svg>`` whose lines and texts take the colour of the surrounding text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # With a fixed salt the ids in the SVG, and so its bytes, are the same at every run.
    with mpl.rc_context({"svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    figure.savefig(folder / f"{name}.png", dpi=160, facecolor="white", metadata={"Software": ""}, bbox_inches="tight")
    (folder / f"{name}.svg").write_text(buffer.getvalue(), encoding="utf-8")
    _write_csv(folder / f"{name}.csv", data)
    return _inline(buffer.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # The page's own colours take over, so that a plot follows its light and its dark scheme.
    body = body.replace(_INK, "currentColor").replace(_RULE, "var(--rule)")
    # Without a fixed size the plot takes the width of its column.
    body = re.sub(r' (width|height)="[\d.]+pt"', "", body, count=2)
    # Matplotlib gives the elements of every figure the same ids, which must be unique on a page.
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)


def _write_csv(path: Path, data: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(data[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(data)
