"""A run that takes its time: ``python letters_run.py DATA OUTPUT LOG [TASK ...]``. Texts by their letters.

Ranks of torchrun wait for each other, and score all tasks again; each notes in ``LOG.<rank>`` what it scored.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np

from gme_data.items import Item
from umrb.scoring.result_files import TaskRecord
from umrb.scoring.runner import RunResult
from umrb.suite import SuiteConfig, run_suite
from umrb.systems.base import DenseSystem, Encoder
from umrb.systems.vectors import VectorStore

TASKS = ("SciFact", "NQ", "FEVER", "FiQA2018", "SCIDOCS", "NFCorpus")


def run(
    data: Path, output: Path, log: Path | None, names: tuple[str, ...], overwrite: str = "only-missing"
) -> RunResult:
    def encode(items: Sequence[Item], instruction: str | None, images: Any) -> np.ndarray:
        if log:
            with log.open("a") as handle:
                rank = os.environ.get("RANK", "0")
                handle.write("".join(f"{rank}\t{instruction} {item.text}\n" for item in items))
            time.sleep(0.1)
        rows = [[(item.text or "").count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] for item in items]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    system = DenseSystem("letters", Encoder("letters", encode), VectorStore(output / "vectors", chunk=4))
    config = SuiteConfig(datasets=names, data=data, output=output, allow_defects=True, overwrite=overwrite)
    meta = mteb.get_model_meta("mteb/baseline-random-encoder").model_copy(
        update={"name": "test/letters", "revision": "1"}
    )
    return run_suite(config, meta, lambda loaded: system)


def score(data: Path, output: Path, log: Path | None = None, names: tuple[str, ...] = TASKS) -> tuple[TaskRecord, ...]:
    return run(data, output, log, names).records


def as_rank(rank: str, ranks: int, data: Path, output: Path, log: Path, names: tuple[str, ...]) -> None:
    log.with_suffix(f".{rank}.ready").touch()
    while len(list(log.parent.glob(f"{log.name}.*.ready"))) < ranks:
        time.sleep(0.02)
    done = run(data, output, log, names, "always")
    log.with_suffix(f".{rank}").write_text("\n".join(done.scored))


if __name__ == "__main__":
    paths, names = list(map(Path, sys.argv[1:4])), tuple(sys.argv[4:]) or TASKS
    if "RANK" in os.environ:
        as_rank(os.environ["RANK"], int(os.environ["WORLD_SIZE"]), *paths, names)
    else:
        score(*paths, names=names)
