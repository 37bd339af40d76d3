"""Import of a corpus of one's own: ``python benchmarks/bench_import.py --rows 1000000``.

Passages of some 200 characters with an id, a title, two aliases and two facts, as JSON lines; no pictures. CPU seconds
and peak memory of the process that imports, beside a quarter as many rows: memory must not grow with them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "the",
    "river",
    "flows",
    "past",
    "a",
    "town",
    "whose",
    "market",
    "was",
    "built",
    "when",
    "trade",
    "in",
    "salt",
    "made",
    "it",
    "rich",
)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        measure(arguments.work)
        return
    print(f"{'rows':>12} {'CPU s':>8} {'rows/CPU s':>12} {'wall s':>8} {'peak MiB':>9}")
    for rows in (arguments.rows // 4, arguments.rows):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "passages.jsonl", rows)
            command = [sys.executable, __file__, "--work", folder]
            seconds, wall, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{rows:>12,} {seconds:>8.1f} {rows / seconds:>12,.0f} {wall:>8.1f} {peak:>9,.0f}", flush=True)


def write(path: Path, rows: int) -> None:
    """Passages that differ in every field."""
    with path.open("w") as handle:
        for number in range(rows):
            turn = number % len(WORDS)
            text = f"Town {number} stands where {' '.join(WORDS[turn:] + WORDS[:turn])}, and {number % 97} roads meet."
            row = {
                "id": f"https://towns.example/{number * 7919 % 10_000_019}",
                "text": text,
                "title": f"Town {number}",
                "aliases": [f"T{number}", f"The {number}th"],
                "facts": {"roads": number % 97, "founded": str(1000 + number % 900)},
            }
            handle.write(json.dumps(row) + "\n")


def measure(folder: Path) -> None:
    """Import, and print CPU seconds, wall seconds and the peak of resident memory in MiB."""
    from flows.chains import IMPORT
    from gme_data.steps import PlannedStep, execute
    from gme_synthesis.corpus.import_config import ImportConfig

    started, before = time.monotonic(), time.process_time()
    config = ImportConfig(passages=folder / "passages.jsonl", licence="CC0-1.0").sealed()
    execute(PlannedStep(IMPORT, config, {}), folder / "work")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.process_time() - before, time.monotonic() - started, peak]))


if __name__ == "__main__":
    main()
