"""The modality gap: the distance between the vectors of texts, pictures and fused items, as a number and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from umrb.report.figures import BLUE, GREEN, ORANGE, drawing, save_figure
from umrb.scoring.cards import VectorSample

Vectors: TypeAlias = NDArray[np.float32]

_MARKERS = {"T": (BLUE, "o", "text"), "I": (ORANGE, "^", "picture"), "IT": (GREEN, "s", "text with picture")}
_MAX_POINTS = 400
"""The plot shows at most this many points of a modality."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The gap between two modalities.

    Attributes:
        pair: Names of the modalities, T, I or IT.
        distance: Distance between the means of their unit vectors, 0 to 2 (Liang et al. 2022, arXiv:2203.02053).
    """

    pair: tuple[str, str]
    distance: float

    @property
    def label(self) -> str:
        """The pair in words."""
        return " to ".join(_MARKERS[modality][2] for modality in self.pair)


def by_modality(samples: Sequence[VectorSample]) -> dict[str, Vectors]:
    """Return the vectors [m, d] of each modality that any of the tasks has."""
    by_name: dict[str, list[Vectors]] = {}
    for sample in samples:
        for modality, vectors in zip(sample.modalities, (sample.queries, sample.docs), strict=True):
            by_name.setdefault(modality, []).append(vectors)
    return {modality: np.concatenate(by_name[modality]) for modality in _MARKERS if modality in by_name}


def gaps(vectors: dict[str, Vectors]) -> list[Gap]:
    """Return the gap of every pair of modalities."""
    centres = {modality: rows.mean(axis=0) for modality, rows in vectors.items()}
    return [
        Gap((first, second), float(np.linalg.norm(centres[first] - centres[second])))
        for first, second in combinations(centres, 2)
    ]


def plot_gap(vectors: dict[str, Vectors], folder: Path) -> str | None:
    """Plot the vectors on their two principal axes; None for fewer than two modalities."""
    if len(vectors) < 2:
        return None
    # Evenly spaced rows, so that all tasks are among the points.
    sampled = {modality: rows[:: max(1, len(rows) // _MAX_POINTS)][:_MAX_POINTS] for modality, rows in vectors.items()}
    points, share = _principal_axes(np.concatenate(list(sampled.values())))
    names = [modality for modality, rows in sampled.items() for _ in rows]
    data = [
        {"modality": name, "x": round(float(x), 5), "y": round(float(y), 5)}
        for name, (x, y) in zip(names, points, strict=True)
    ]
    with drawing():
        figure = Figure(figsize=(6.2, 4.4))
        axes = figure.subplots()
        for modality in sampled:
            colour, marker, label = _MARKERS[modality]
            cluster = points[np.array(names) == modality]
            x, y = cluster.T
            axes.scatter(x, y, s=14, color=colour, marker=marker, alpha=0.55, linewidth=0, label=label)
            centre_x, centre_y = cluster.mean(axis=0)
            axes.scatter(centre_x, centre_y, s=150, color=colour, marker=marker, edgecolor="white", zorder=3)
        axes.set_xlabel(f"first principal axis ({share[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({share[1]:.0%})")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return save_figure(figure, folder, "gap", data)


def _principal_axes(vectors: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[m, 2] coordinates of the vectors on their two principal axes, and the axes' shares of the variance."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of an axis is arbitrary; making its largest entry positive gives the same plot on every machine.
    axes = axes[:2] * np.sign(axes[:2, np.abs(axes[:2]).argmax(axis=1)].diagonal())[:, None]
    shares: NDArray[np.float64] = sizes**2 / (sizes**2).sum()
    return np.asarray(centred @ axes.T), shares[:2]
