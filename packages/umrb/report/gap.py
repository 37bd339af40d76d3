"""The modality gap: how far apart a model puts texts, pictures and fused items, as a number and as a picture."""

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

_LOOKS = {"T": (BLUE, "o", "text"), "I": (ORANGE, "^", "picture"), "IT": (GREEN, "s", "text with picture")}
_MOST = 400
"""Points of a modality in the picture."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Two modalities.

    Attributes:
        pair: Their names, T, I or IT.
        distance: Between the centres of their unit vectors, 0 to 2 (Liang et al. 2022, arXiv:2203.02053).
    """

    pair: tuple[str, str]
    distance: float

    @property
    def label(self) -> str:
        """In words."""
        return " to ".join(_LOOKS[modality][2] for modality in self.pair)


def by_modality(samples: Sequence[VectorSample]) -> dict[str, Vectors]:
    """Vectors [m, d] of each modality that any of the tasks has."""
    found: dict[str, list[Vectors]] = {}
    for sample in samples:
        for modality, vectors in zip(sample.modalities, (sample.queries, sample.docs), strict=True):
            found.setdefault(modality, []).append(vectors)
    return {modality: np.concatenate(found[modality]) for modality in _LOOKS if modality in found}


def gaps(vectors: dict[str, Vectors]) -> list[Gap]:
    """Every pair of modalities."""
    centres = {modality: rows.mean(axis=0) for modality, rows in vectors.items()}
    return [
        Gap((one, other), float(np.linalg.norm(centres[one] - centres[other])))
        for one, other in combinations(centres, 2)
    ]


def plot_gap(vectors: dict[str, Vectors], folder: Path) -> str | None:
    """The vectors on their two principal axes; None for fewer than two modalities."""
    if len(vectors) < 2:
        return None
    few = {modality: rows[:: max(1, len(rows) // _MOST)][:_MOST] for modality, rows in vectors.items()}
    places, share = _principal(np.concatenate(list(few.values())))
    names = [modality for modality, rows in few.items() for _ in rows]
    data = [
        {"modality": name, "x": round(float(x), 5), "y": round(float(y), 5)}
        for name, (x, y) in zip(names, places, strict=True)
    ]
    with drawing():
        figure = Figure(figsize=(6.2, 4.4))
        axes = figure.subplots()
        for modality in few:
            colour, marker, label = _LOOKS[modality]
            mine = places[np.array(names) == modality]
            axes.scatter(
                mine[:, 0], mine[:, 1], s=14, color=colour, marker=marker, alpha=0.55, linewidth=0, label=label
            )
            x, y = mine.mean(axis=0)
            axes.scatter(x, y, s=150, color=colour, marker=marker, edgecolor="white", zorder=3)
        axes.set_xlabel(f"first principal axis ({share[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({share[1]:.0%})")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return save_figure(figure, folder, "gap", data)


def _principal(vectors: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[m, 2] places on the two principal axes, and their shares of the variance. The sign of an axis is fixed."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2, np.abs(axes[:2]).argmax(axis=1)].diagonal())[:, None]
    shares: NDArray[np.float64] = sizes**2 / (sizes**2).sum()
    return np.asarray(centred @ axes.T), shares[:2]
