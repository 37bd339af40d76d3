"""The report on mined hard negatives: the scores of every negative, rejected candidates by reason, and a plot."""

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
from gme_training.mining.hard_negatives import MinedNegatives

REPORT, SCORES, PLOT = "mining.json", "negatives.parquet", "similarities.svg"
_EDGES = np.linspace(-1, 1, 81)
"""The edges of the histograms of cosines."""
_SCHEMA = pa.schema(
    [
        pa.field("example", pa.string(), nullable=False),
        pa.field("positive_score", pa.float32(), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
"""The columns of ``negatives.parquet``: a row for each example that was mined; `scores` are those of its mined
negatives, nearest first."""
_TEACHER_SCHEMA = pa.schema([field.with_name(f"teacher_{field.name}") for field in list(_SCHEMA)[1:]])
"""The further columns with a teacher: its cosines with the same items."""


def write_report(folder: Path, catalog: Catalog, mined: Mapping[str, Sequence[MinedNegatives]]) -> None:
    """Writes ``mining.json``, ``negatives.parquet`` and ``similarities.svg``."""
    examples = [example for of_source in mined.values() for example in of_source]
    has_teacher = any(example.teacher for example in examples)
    schema = pa.unify_schemas([_SCHEMA, _TEACHER_SCHEMA]) if has_teacher else _SCHEMA
    write_table(folder / SCORES, [_row(catalog, example) for example in examples], schema)
    report = {source: summary(of_source) for source, of_source in mined.items()}
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _plot(folder / PLOT, report)


def _row(catalog: Catalog, mined: MinedNegatives) -> dict[str, Any]:
    row = {
        "example": catalog.examples[mined.row].id,
        "positive_score": mined.positive,
        "scores": list(mined.scores),
    }
    if mined.teacher:
        row |= {"teacher_positive_score": mined.teacher.positive, "teacher_scores": mined.teacher.candidates}
    return row


def summary(mined: Sequence[MinedNegatives]) -> dict[str, Any]:
    """Returns counts and histograms of cosines of one source.

    `passed` counts the rejected candidates by reason. `harder` counts the negatives that are more similar to the query
    than the positive: unmarked positives are among them.
    """
    positives = np.array([example.positive for example in mined])
    negatives = np.array([score for example in mined for score in example.scores])
    rejected: Counter[str] = sum((Counter(example.rejected) for example in mined), Counter())
    return {
        "examples": len(mined),
        "negatives": len(negatives),
        "without_negatives": sum(not example.items for example in mined),
        "passed": dict(sorted(rejected.items())),
        "harder": sum(score > example.positive for example in mined for score in example.scores),
        "edges": _EDGES.round(3).tolist(),
        "positive_counts": np.histogram(positives, _EDGES)[0].tolist(),
        "negative_counts": np.histogram(negatives, _EDGES)[0].tolist(),
    }


def _plot(path: Path, report: Mapping[str, Mapping[str, Any]]) -> None:
    """Plots the histograms of cosines of positives and of mined negatives, a row for each source."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    # A fixed salt, font and no date: equal scores give equal bytes.
    with mpl.rc_context({"svg.hashsalt": "mining", "font.family": "DejaVu Sans"}):
        size = (7, 0.4 + 1.7 * max(len(report), 1))
        figure, axes = plt.subplots(max(len(report), 1), squeeze=False, sharex=True, figsize=size, layout="constrained")
        for (source, values), (ax,) in zip(report.items(), axes, strict=False):
            for name, colour in (("positive", "#0072b2"), ("negative", "#d55e00")):
                counts = np.array(values[f"{name}_counts"])
                ax.stairs(
                    counts / max(counts.sum(), 1),
                    values["edges"],
                    fill=True,
                    alpha=0.6,
                    color=colour,
                    label=name,
                )
            ax.set_title(
                f"{source}: {values['negatives']} negatives, {values['harder']} above their positive",
                size=9,
            )
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_ylabel("share")
        axes[0, 0].legend(frameon=False, fontsize="small")
        axes[-1, 0].set_xlabel("cosine with the query")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
