"""What synthesis publishes besides examples: rejects with step and reason, and the funnel that counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from gme_data.items import TASK_TYPES
from gme_data.parquet import write_shards
from gme_synthesis.stages import Reject, Tally

REJECTS_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("step", "reason", "subject", "text")]
)


def write_rejects(folder: Path, rejects: Iterable[Reject]) -> None:
    """Writes ``rejects-*.parquet`` in the order of `rejects`, which the caller has sorted."""
    write_shards(folder, "rejects", map(asdict, rejects), REJECTS_SCHEMA)


def build_funnel(tallies: Iterable[Tally], examples: Counter[tuple[str, str]]) -> dict[str, Any]:
    """Returns the content of ``funnel.json``; `examples` are counts by source and task type."""
    types, sources = Counter[str](), Counter[str]()
    for (source, task_type), count in examples.items():
        types[task_type] += count
        sources[source] += count
    return {
        "steps": [{**asdict(tally), "rejected": dict(sorted(tally.rejected.items()))} for tally in tallies],
        # All nine types, so that one without examples shows.
        "task_types": {name: types[name] for name in TASK_TYPES},
        "sources": dict(sorted(sources.items())),
        "examples": examples.total(),
    }
