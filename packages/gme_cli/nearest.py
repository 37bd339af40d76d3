"""`gme nearest`: from the vectors of queries and of a corpus to the nearest rows of each query."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gme_cli.options import Common, print_json, say
from gme_data.errors import FoundryError

if TYPE_CHECKING:
    import numpy as np

_COMMON = Common()
_SAMPLE = 200
Index = Literal["exact", "flat", "ivf", "hnsw"]


def nearest(
    *,
    queries: Annotated[Path, Parameter(name=["--queries", "-q"])],
    corpus: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    k: Annotated[int, Parameter(name="-k")] = 10,
    index: Index = "exact",
    common: Common = _COMMON,
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
        How many rows.
    index
        exact: block by block, the corpus is never in memory as a whole. flat, ivf, hnsw: an index of FAISS in memory;
        its recall against exact search is measured on 200 queries and printed.
    """
    if k < 1:
        raise FoundryError(f"-k {k}: expected 1 or more.")
    query_ids, query_shards = _open(queries)
    ids, shards = _open(corpus)
    if common.dry_run:
        say(f"Would find the {k} nearest of {len(ids):,} rows for {len(query_ids):,} queries and write {output}.")
        return
    scores, rows, found = _search(query_shards, shards, k, index)
    _write(output, query_ids, ids, scores, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if common.json:
        print_json({"output": output, "queries": len(query_ids), "rows": len(ids), "recall": found, "peak_gib": peak})
        return
    share = "" if found is None else f", recall@{k} {found:.4f} of exact search on up to {_SAMPLE} queries"
    say(f"{output}: {len(query_ids):,} queries over {len(ids):,} rows{share}; peak memory {peak:.2f} GiB")


def _open(folder: Path) -> tuple[list[str], list[Any]]:
    """Ids in order, and the memory-mapped vectors of each shard."""
    from gme_embedder.bulk import open_vectors

    opened = list(open_vectors(folder))
    return [row_id for ids, _ in opened for row_id in ids], [vectors for _, vectors in opened]


def _search(
    query_shards: list[Any], shards: list[Any], k: int, index: Index
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Scores and rows [q, k], and the recall of an index."""
    import numpy as np

    from gme_embedder.index import search_shards

    asked = np.concatenate(query_shards).astype(np.float32)
    if index == "exact":
        return *search_shards(asked, shards, k), None
    from gme_embedder.approximate import build_index

    built = build_index(shards, index)
    return *built.search(asked, k), built.measure(asked, shards, k, _SAMPLE)


def _write(output: Path, query_ids: list[str], ids: list[str], scores: np.ndarray, rows: np.ndarray) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    query, rank = np.nonzero(rows >= 0)  # an approximate index may find less than k
    table = {
        "query": pa.array(query_ids).take(pa.array(query)),
        "rank": pa.array(rank + 1, pa.int32()),
        "id": pa.array(ids, pa.string()).take(pa.array(rows[query, rank])),
        "score": pa.array(scores[query, rank], pa.float32()),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part")
    pq.write_table(pa.table(table), part)
    part.replace(output)
