"""What synthesis leaves behind besides examples: rejects with step and reason, and the funnel that counts them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from gme_data.examples import Example
from gme_data.items import TASK_TYPES
from gme_data.parquet import write_shards
from gme_synthesis.records import Reject, Tally

REJECTS_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("step", "reason", "subject", "text")]
)


def merge_tallies(tallies: Iterable[Tally]) -> list[Tally]:
    """One tally a step, in the order in which steps first appear."""
    merged: dict[str, Tally] = {}
    for one in tallies:
        merged.setdefault(one.step, Tally(one.step)).add(one)
    return list(merged.values())


def write_rejects(folder: Path, rejects: Iterable[Reject]) -> None:
    """Write ``rejects-*.parquet`` in the order given: by step, reason, subject and text."""
    write_shards(folder, "rejects", map(asdict, rejects), REJECTS_SCHEMA)


def write_funnel(
    path: Path, tallies: Sequence[Tally], examples: Sequence[Example], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Write ``funnel.json``: what each step saw, kept and rejected, what was skipped, examples by type and source.

    Returns its content.
    """
    facts = {**funnel(tallies, Counter((one.source, one.task_type) for one in examples)), "skipped": skipped}
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def funnel(tallies: Iterable[Tally], examples: Counter[tuple[str, str]]) -> dict[str, Any]:
    """The content of ``funnel.json``; `examples` are counts by source and task type."""
    types, sources = Counter[str](), Counter[str]()
    for (source, task_type), count in examples.items():
        types[task_type] += count
        sources[source] += count
    return {
        "steps": [{**asdict(one), "rejected": dict(sorted(one.rejected.items()))} for one in tallies],
        "task_types": {name: types[name] for name in TASK_TYPES},
        "sources": dict(sorted(sources.items())),
        "examples": examples.total(),
    }
