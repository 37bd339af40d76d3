"""What synthesis leaves behind besides examples: rejects with step and reason, and the funnel that counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from gme_data.items import TASK_TYPES
from gme_data.parquet import write_shards
from gme_synthesis.records import Reject, Tally

REJECTS_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("step", "reason", "subject", "text")]
)


def write_rejects(folder: Path, rejects: Iterable[Reject]) -> None:
    """Write ``rejects-*.parquet`` in the order given: by step, reason, subject and text."""
    write_shards(folder, "rejects", map(asdict, rejects), REJECTS_SCHEMA)


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
