"""What mining found, for people and for later steps: scores of every negative, counts by reason, and a plot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gme_data.parquet import write_table
from gme_training.data.catalog import Catalog
from gme_training.mining.hard_negatives import Mined

REPORT, SCORES, PLOT = "mining.json", "negatives.parquet", "similarities.svg"
_EDGES = np.linspace(-1, 1, 81)
_SCHEMA = pa.schema(
    [
        pa.field("example", pa.string(), nullable=False),
        pa.field("positive_score", pa.float32(), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
"""One row for each example that was looked at; `scores` are those of its mined negatives, nearest first."""
_TEACHER = pa.schema([pa.field(f"teacher_{field.name}", field.type, nullable=False) for field in list(_SCHEMA)[1:]])
"""Further columns, if a teacher was asked: its cosines with the same items."""


def write_report(folder: Path, catalog: Catalog, mined: Mapping[str, Sequence[Mined]]) -> None:
    """Write ``mining.json``, ``negatives.parquet`` and ``similarities.svg``."""
    everything = [one for found in mined.values() for one in found]
    taught = any(one.teacher for one in everything)
    schema = pa.unify_schemas([_SCHEMA, _TEACHER]) if taught else _SCHEMA
    write_table(folder / SCORES, [_row(catalog, one) for one in everything], schema)
    report = {source: summary(found) for source, found in mined.items()}
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _plot(folder / PLOT, report)


def _row(catalog: Catalog, one: Mined) -> dict[str, Any]:
    row = {"example": catalog.examples[one.row].id, "positive_score": one.positive, "scores": list(one.scores)}
    if one.teacher:
        row |= {"teacher_positive_score": one.teacher.positive, "teacher_scores": one.teacher.candidates}
    return row


def summary(found: Sequence[Mined]) -> dict[str, Any]:
    """Of one source: examples, negatives, candidates passed over by reason, and histograms of cosines.

    `harder` counts the negatives that the model finds more similar to the query than the positive: unmarked positives
    are among them.
    """
    positives = np.array([one.positive for one in found])
    negatives = np.array([score for one in found for score in one.scores])
    passed: Counter[str] = sum((Counter(one.passed) for one in found), Counter())
    return {
        "examples": len(found),
        "negatives": len(negatives),
        "without_negatives": sum(not one.items for one in found),
        "passed": dict(sorted(passed.items())),
        "harder": sum(score > one.positive for one in found for score in one.scores),
        "edges": _EDGES.round(3).tolist(),
        "positive_counts": np.histogram(positives, _EDGES)[0].tolist(),
        "negative_counts": np.histogram(negatives, _EDGES)[0].tolist(),
    }


def _plot(path: Path, report: Mapping[str, Mapping[str, Any]]) -> None:
    """Cosines of positives and of mined negatives, a row for each source."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "mining", "font.family": "DejaVu Sans"}):
        size = (7, 0.4 + 1.7 * max(len(report), 1))
        figure, axes = plt.subplots(max(len(report), 1), squeeze=False, sharex=True, figsize=size, layout="constrained")
        for (source, facts), (ax,) in zip(report.items(), axes, strict=False):
            for name, colour in (("positive", "#0072b2"), ("negative", "#d55e00")):
                counts = np.array(facts[f"{name}_counts"])
                ax.stairs(counts / max(counts.sum(), 1), facts["edges"], fill=True, alpha=0.6, color=colour, label=name)
            ax.set_title(f"{source}: {facts['negatives']} negatives, {facts['harder']} above their positive", size=9)
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_ylabel("share")
        axes[0, 0].legend(frameon=False, fontsize="small")
        axes[-1, 0].set_xlabel("cosine with the query")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
