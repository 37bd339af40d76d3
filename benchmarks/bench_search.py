"""Exact search against FAISS: ``python benchmarks/bench_search.py``.

1,000 random unit queries over a corpus in 16 memory-mapped files, on one thread: 1M x 256 and 50k x 1536, k of 10 and
1,000. The peer is `IndexFlatIP`, built beforehand, the whole corpus in its memory. Rows and scores must be the
same before a ratio is printed. CPU seconds, the least of interleaved rounds. Memory is what a process of its own adds
for a search of ours (anonymous pages; those of the mapped files are the system's to drop), over the corpus in float32.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from timing import interleaved_minimum

from gme_data.environment import settle
from gme_embedder.index import search_shards

ROUNDS = 3
SHARDS = 16
QUERIES = 1000
TOLERANCE = 1e-5
WORKLOADS = ((1_000_000, 256, 10), (1_000_000, 256, 1000), (50_000, 1536, 10), (50_000, 1536, 1000))


def main() -> None:
    """Print a line for each workload; with --memory, the peak of one search alone."""
    settle()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs=3, metavar=("FOLDER", "D", "K"), help=argparse.SUPPRESS)
    asked = parser.parse_args().memory
    if asked:
        print(peak(Path(asked[0]), int(asked[1]), int(asked[2])))
        return
    for rows, size in dict.fromkeys((rows, size) for rows, size, _ in WORKLOADS):
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(Path(folder), rows, size)
            compare(Path(folder), rows, size)


def compare(folder: Path, rows: int, size: int) -> None:
    """Check, measure, print."""
    shards, asked = read_corpus(folder), queries(size)
    index = faiss.IndexFlatIP(size)
    for shard in shards:
        index.add(np.ascontiguousarray(shard, dtype=np.float32))
    for k in (k for n, d, k in WORKLOADS if (n, d) == (rows, size)):
        check(search_shards(asked, shards, k), index.search(asked, k))
        theirs, ours = interleaved_minimum(
            [lambda k=k: index.search(asked, k), lambda k=k: search_shards(asked, shards, k)], ROUNDS
        )
        done = subprocess.run(
            [sys.executable, __file__, "--memory", str(folder), str(size), str(k)],
            capture_output=True,
            text=True,
            check=True,
        )
        share = int(done.stdout.split()[-1]) / (4 * rows * size)
        print(
            f"{rows:>9} x {size:<5} k={k:<5} IndexFlatIP {theirs:6.2f} CPU s   ours {ours:6.2f} CPU s   "
            f"{theirs / ours:.2f}x as fast, memory {share:.3f} of the corpus in float32",
            flush=True,
        )


def check(ours: tuple[NDArray[np.float32], NDArray[np.int64]], theirs: tuple[np.ndarray, np.ndarray]) -> None:
    """The same scores at each rank; the same rows, but for ones whose scores are within a rounding."""
    assert np.abs(ours[0] - theirs[0]).max() < TOLERANCE
    differ = ours[1] != theirs[1]
    gaps = np.abs(np.diff(theirs[0], axis=1, append=theirs[0][:, -1:]))
    near = np.minimum(gaps, np.roll(gaps, 1, axis=1)) < TOLERANCE
    assert (near | ~differ)[:, :-1].all(), "rows differ whose scores do not"


def peak(folder: Path, size: int, k: int) -> int:
    """Bytes of anonymous memory that a search adds at its highest."""
    shards, asked = read_corpus(folder), queries(size)
    search_shards(asked[:200], [np.zeros((5000, size), np.float32)], 1)  # what libraries take once
    start, highest, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            highest[0] = max(highest[0], anonymous())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    search_shards(asked, shards, k)
    done.set()
    watcher.join()
    return highest[0] - start


def anonymous() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def queries(size: int) -> NDArray[np.float32]:
    return unit(np.random.default_rng(1), QUERIES, size)


def write_corpus(folder: Path, rows: int, size: int) -> None:
    draw = np.random.default_rng(0)
    for number, count in enumerate(np.diff(np.linspace(0, rows, SHARDS + 1).astype(int))):
        np.save(folder / f"vectors-{number:05d}.npy", unit(draw, count, size))


def read_corpus(folder: Path) -> list[NDArray[np.float32]]:
    return [np.load(path, mmap_mode="r") for path in sorted(folder.glob("vectors-*.npy"))]


def unit(draw: np.random.Generator, count: int, size: int) -> NDArray[np.float32]:
    vectors = draw.standard_normal((count, size), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


if __name__ == "__main__":
    main()
