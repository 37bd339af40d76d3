"""Import of pairs: seconds and memory for many rows: ``python benchmarks/bench_pairs.py [--rows 1000000]``.

Rows are as sentence-transformers keeps them, JSON lines with a query, a positive and a negative of some hundred
characters. The import runs in a process of its own, whose CPU seconds and peak memory are those of the kernel.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [f"word{number}" for number in range(5000)]


def write_pairs(path: Path, rows: int) -> None:
    """`rows` pairs of made-up words."""
    draw = random.Random(0)  # noqa: S311 - no secret
    with path.open("w", encoding="utf-8") as out:
        for number in range(rows):
            texts = [" ".join(draw.choices(WORDS, k=length)) for length in (8, 40, 40)]
            row = {"anchor": f"{texts[0]} {number}", "positive": f"{texts[1]} {number}", "negative": texts[2]}
            out.write(json.dumps(row) + "\n")


def import_rows(folder: Path) -> None:
    """The step itself, in this process."""
    from flows.chains import PAIRS
    from gme_data.steps import PlannedStep, execute
    from gme_synthesis.pairs.config import PairsConfig

    execute(PlannedStep(PAIRS, PairsConfig(pairs=folder / "pairs.jsonl").sealed(), {}), folder / "work")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--run", type=Path)
    given = parser.parse_args()
    if given.run:
        import_rows(given.run)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.jsonl", given.rows)
        size = (folder / "pairs.jsonl").stat().st_size
        started = time.monotonic()
        subprocess.run([sys.executable, __file__, "--run", str(folder)], check=True)
        wall, used = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        sys.stdout.write(
            f"{given.rows:,} pairs, {size / 2**20:,.0f} MiB: {wall:.1f} s, {used.ru_utime + used.ru_stime:.1f} CPU s, "
            f"{used.ru_maxrss / 1024:,.0f} MiB\n"
        )


if __name__ == "__main__":
    main()
