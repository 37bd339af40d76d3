"""`gme nearest`: find the nearest rows of a corpus for each query, both as folders of vectors."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gme_cli.options import DryRunOptions, JsonOptions, print_json, say, say_plan
from gme_data.errors import FoundryError

if TYPE_CHECKING:
    import numpy as np

    from gme_embedder.corpus.vector_folder import VectorShard

_SAMPLE = 200
"""Queries on which the recall of an index is measured."""
Index = Literal["exact", "flat", "ivf", "hnsw"]


@Parameter(name="*")
@dataclass(frozen=True)
class NearestOptions(DryRunOptions, JsonOptions):
    """Options of `gme nearest`, which needs neither pipeline nor workspace."""


_OPTIONS = NearestOptions()


def nearest(
    *,
    queries: Annotated[Path, Parameter(name=["--queries", "-q"])],
    corpus: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    k: Annotated[int, Parameter(name="-k")] = 10,
    index: Index = "exact",
    common: NearestOptions = _OPTIONS,
) -> None:
    """Find the nearest rows of a corpus for every query; both are folders of vectors made by `gme embed`.

    Parameters
    ----------
    queries
        Folder of vectors of the queries.
    corpus
        Folder of vectors to search in.
    output
        A parquet file: query, rank, id, score.
    k
        Number of rows for each query.
    index
        exact: block by block, the corpus is never in memory as a whole. flat, ivf, hnsw: an index of FAISS in memory;
        its recall against exact search is measured on 200 queries and printed.
    """
    if k < 1:
        raise FoundryError(f"-k {k}: expected 1 or more.")
    if output.is_dir() or any(parent.is_file() for parent in output.parents):
        raise FoundryError(f"--output {output}: expected a file in a folder.", hint="Such as hits.parquet.")
    from gme_embedder.corpus.job import require_comparable
    from gme_embedder.corpus.vector_folder import open_index

    # Vectors of different models or input settings have inner products too, which mean nothing.
    notes = require_comparable(queries, corpus)
    query_shards, corpus_shards = open_index(queries).shards, open_index(corpus).shards
    query_ids, ids = ([row_id for shard in shards for row_id in shard.ids] for shards in (query_shards, corpus_shards))
    if common.dry_run:
        text = f"Would find the {k} nearest of {len(ids):,} rows for {len(query_ids):,} queries and write {output}."
        say_plan(text, json=common.json)
        return
    scores, rows, recall = _search(query_shards, corpus_shards, k, index)
    _write(output, query_ids, ids, scores, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if common.json:
        result = {"output": output, "queries": len(query_ids), "rows": len(ids), "recall": recall}
        print_json({**result, "peak_gib": peak, "notes": notes})
        return
    for note in notes:
        sys.stderr.write(f"{note}\n")
    recall_text = "" if recall is None else f", recall@{k} {recall:.4f} of exact search on up to {_SAMPLE} queries"
    say(f"{output}: {len(query_ids):,} queries over {len(ids):,} rows{recall_text}; peak memory {peak:.2f} GiB")


def _search(
    query_shards: list[VectorShard], corpus_shards: list[VectorShard], k: int, index: Index
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Returns scores [q, k], rows [q, k], and the recall of an index; None for exact search."""
    import numpy as np

    from gme_embedder.vectors.approximate import build_index
    from gme_embedder.vectors.exact import search_shards

    for shard in query_shards:
        shard.require_finite()
    shards = [shard.vectors for shard in corpus_shards]
    rows = sum(map(len, shards))
    if not query_shards or not rows:  # an empty folder does not tell the dimension of its vectors
        shape = (sum(len(shard.ids) for shard in query_shards), min(k, rows))
        return np.zeros(shape, np.float32), np.zeros(shape, np.int64), None if index == "exact" else 1.0
    queries = np.concatenate([shard.vectors for shard in query_shards]).astype(np.float32)
    try:
        if index == "exact":
            return *search_shards(queries, shards, k), None
        built = build_index(shards, index)
        return *built.search(queries, k), built.measure(queries, shards, k, _SAMPLE)
    except FoundryError:
        for shard in corpus_shards:  # finds a damaged shard; only after an error, since it reads the whole corpus
            shard.require_finite()
        raise


def _write(output: Path, query_ids: list[str], ids: list[str], scores: np.ndarray, rows: np.ndarray) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    query, rank = np.nonzero(rows >= 0)  # an approximate index may find fewer than k rows, and fills up with -1
    table = {
        "query": pa.array(query_ids).take(pa.array(query)),
        "rank": pa.array(rank + 1, pa.int32()),
        "id": pa.array(ids, pa.string()).take(pa.array(rows[query, rank])),
        "score": pa.array(scores[query, rank], pa.float32()),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete, so that a kill leaves no half of a file.
    part = output.with_name(f".{output.name}.part")
    pq.write_table(pa.table(table), part)
    part.replace(output)
