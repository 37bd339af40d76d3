"""Exact search against FAISS: ``python benchmarks/bench_search.py``.

Unit vectors drawn from a fixed seed, 1,000 queries, one thread. FAISS searches its `IndexFlatIP`, built beforehand and
held in memory; ours searches memory-mapped shards of 8,192 rows, in float32 and in float16. Ids must be the same but
for scores that are equal up to float32 rounding. CPU seconds, the least of interleaved rounds.

Memory: how far the anonymous part of a process that does nothing else rises above its start, beyond the result, and
beside it the whole, with the pages of the files that happen to be mapped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from timing import interleaved_minimum

from gme_embedder.vectors.approximate import build_index
from gme_embedder.vectors.exact import search_shards

ROUNDS = 3
QUERIES = 1000
SHARD = 8192
TOLERANCE = 1e-6
WORKLOADS = ((1_000_000, 256, 10), (1_000_000, 256, 1000), (50_000, 1536, 10), (50_000, 1536, 1000))


def main() -> None:
    """Print a table."""
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", nargs=2, metavar=("FOLDER", "K"), help=argparse.SUPPRESS)
    peak = parser.parse_args().peak
    if peak:
        print_peak(Path(peak[0]), int(peak[1]))
        return
    for count, size in dict.fromkeys((count, size) for count, size, _ in WORKLOADS):
        with tempfile.TemporaryDirectory() as folder:
            index = write(Path(folder), count, size)
            for k in (k for *workload, k in WORKLOADS if workload == [count, size]):
                compare(Path(folder), index, k)
    approximate()


def write(folder: Path, count: int, size: int) -> faiss.IndexFlatIP:
    """Queries and shards of a corpus, and FAISS's index of it."""
    draw = np.random.default_rng(0)
    np.save(folder / "queries.npy", unit(draw.standard_normal((QUERIES, size), dtype=np.float32)))
    index = faiss.IndexFlatIP(size)
    for start in range(0, count, SHARD):
        shard = unit(draw.standard_normal((min(SHARD, count - start), size), dtype=np.float32))
        for dtype in ("float32", "float16"):
            np.save(folder / f"{dtype}-{start // SHARD:05d}.npy", shard.astype(dtype))
        index.add(shard)
    return index


def compare(folder: Path, index: faiss.IndexFlatIP, k: int) -> None:
    """Check, measure, print."""
    queries = np.load(folder / "queries.npy")
    corpus = index.ntotal * index.d * 4 / 2**20
    print(f"{index.ntotal} x {index.d}, {QUERIES} queries, k {k}; the corpus in float32: {corpus:.0f} MiB", flush=True)
    assert_same(index.search(queries, k), search_shards(queries, shards(folder, "float32"), k))
    check_half(folder, queries, k)
    ways = [lambda: index.search(queries, k)]
    ways += [lambda dtype=dtype: search_shards(queries, shards(folder, dtype), k) for dtype in ("float32", "float16")]
    seconds = interleaved_minimum(ways, ROUNDS)
    for name, spent in zip(("IndexFlatIP", "ours, float32", "ours, float16"), seconds, strict=True):
        print(f"  {name:<14} {spent:6.2f} CPU s   faiss / it {seconds[0] / spent:5.2f}", flush=True)
    command = [sys.executable, __file__, "--peak", str(folder), str(k)]
    anonymous, whole = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    share = corpus / anonymous
    print(
        f"  memory         {anonymous:6.0f} MiB = 1/{share:.1f} of the corpus; with mapped files {whole:.0f}",
        flush=True,
    )


def check_half(folder: Path, queries: NDArray[np.float32], k: int) -> None:
    """The scan of float16 shards finds what FAISS finds in their values, on some of the queries."""
    some = queries[::10]
    found = search_shards(some, shards(folder, "float16"), k)
    best = faiss.ResultHeap(len(some), k, keep_max=True)
    offset = 0
    for shard in shards(folder, "float16"):
        scores, rows = faiss.knn(some, shard.astype(np.float32), min(k, len(shard)), metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, rows + offset)
        offset += len(shard)
    best.finalize()
    assert_same((best.D, best.I), found)


def assert_same(theirs: Sequence[NDArray[Any]], ours: Sequence[NDArray[Any]]) -> None:
    """Scores equal up to rounding; an id that only one of them has is one whose score ties with the last, so far."""
    assert np.abs(theirs[0] - ours[0]).max() < TOLERANCE
    for number in np.flatnonzero((theirs[1] != ours[1]).any(axis=1)):
        last = theirs[0][number, -1]
        for mine, other in ((theirs, ours), (ours, theirs)):
            alone = ~np.isin(mine[1][number], other[1][number])
            assert (mine[0][number][alone] < last + TOLERANCE).all()


def shards(folder: Path, dtype: str) -> Iterator[NDArray[Any]]:
    """Memory-mapped, as `open_vectors` gives them."""
    return (np.load(path, mmap_mode="r") for path in sorted(folder.glob(f"{dtype}-*.npy")))


def approximate() -> None:
    """How much each kind of index finds of 20,000 vectors around 200 centres, and how fast."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((200, 128), dtype=np.float32)
    near = [unit(centres[draw.integers(0, 200, count)] + draw.standard_normal((count, 128), dtype=np.float32))
            for count in (20_000, QUERIES)]  # fmt: skip
    print("20000 x 128, k 10")
    for kind in ("flat", "ivf", "hnsw"):
        started = time.process_time()
        index = build_index([near[0]], kind)
        built = time.process_time() - started
        (spent,) = interleaved_minimum([lambda index=index: index.search(near[1], 10)], ROUNDS)
        found = index.measure(near[1], [near[0]], 10)
        print(f"  {kind:<14} {spent:6.2f} CPU s   recall@10 {found:.4f}   built in {built:.1f} CPU s")


def print_peak(folder: Path, k: int) -> None:
    """MiB that a search adds, anonymous and in all, beyond the result."""
    queries = np.load(folder / "queries.npy")
    start, highest, done = resident(), resident(), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = tuple(map(max, highest, resident()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    scores, rows = search_shards(queries, shards(folder, "float32"), k)
    done.set()
    watcher.join()
    result = (scores.nbytes + rows.nbytes) / 2**20
    print(*((high - low) / 2**10 - result for high, low in zip(highest, start, strict=True)))


def resident() -> tuple[int, ...]:
    """KiB: anonymous, and all."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return tuple(int(lines[name].split()[0]) for name in ("RssAnon", "VmRSS"))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divided by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
