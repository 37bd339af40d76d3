"""Run files and per-query values on disk: the first documents of each query, and what each query scored.

Paired comparisons of two systems are computed from the per-query values. Equal rows give equal bytes, and files are
replaced atomically. Knows tables; neither systems nor metrics.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.journal import atomic_write
from gme_data.parquet import ROW_GROUP_ROWS
from umrb.data.tasks import NumberedTask
from umrb.metrics import NOT_FOUND, rank_relevant
from umrb.systems.base import QueryScores, Ranking

QUERIES, RUNS = "queries", "runs"
"""Folders of the per-query values and of the run files, in the folder of a system's results."""

RUN_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
QUERY_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("first_relevant", pa.int32()),
    ]
)


def write_run_files(folder: Path, task: NumberedTask, scores: QueryScores, depth: int) -> None:
    """Write the first `depth` documents of each query, if there is a ranking, and the per-query values."""
    if scores.ranking is not None:
        _write(folder / RUNS, task, _run_table(task, scores.ranking, depth))
    _write(folder / QUERIES, task, _query_table(task, scores))


def _write(folder: Path, task: NumberedTask, table: pa.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    buffer = pa.BufferOutputStream()
    # Compression and row groups are fixed, so that equal rows give equal bytes.
    pq.write_table(table, buffer, compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS)
    atomic_write(folder / f"{task.card.name}.parquet", buffer.getvalue().to_pybytes())


def _run_table(task: NumberedTask, ranking: Ranking, depth: int) -> pa.Table:
    rows, scores = ranking.rows[:, :depth], ranking.scores[:, :depth]
    query, rank = np.nonzero(rows >= 0)
    columns = [
        task.queries.ids.take(pa.array(query)),
        # Ranks count from 0 in memory and from 1 in files, as in trec_eval's.
        pa.array(rank + 1, pa.int32()),
        task.docs.ids.take(pa.array(rows[query, rank])),
        pa.array(scores[query, rank], pa.float32()),
    ]
    return pa.table(columns, schema=RUN_SCHEMA)


def _query_table(task: NumberedTask, scores: QueryScores) -> pa.Table:
    """The headline value of each query, and the rank from 1 of its first relevant document; null if not returned."""
    first = np.full(len(task.queries), NOT_FOUND)
    if scores.ranking is not None:
        first = rank_relevant(scores.ranking.rows, task.judgements).first
    columns = [
        task.queries.ids,
        pa.array(task.queries.subsets, pa.string()),
        pa.array(scores.metrics[task.card.metric], pa.float64()),
        pa.array(np.where(first == NOT_FOUND, 0, first + 1), pa.int32(), mask=first == NOT_FOUND),
    ]
    return pa.table(columns, schema=QUERY_SCHEMA)
