"""The example that is judged: symbols that the starter never saw, from a package that is there, to a better model."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from support.small import GME, Small

from flows.chains import pipeline_chain
from flows.config import load_pipeline
from gme_data.tables import Row, open_table
from umrb.report.paired import difference_interval
from umrb.scoring.evaluator import system_folder
from umrb.scoring.run_files import QUERIES

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "symbols"
FEWEST_QUERIES = 300


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder with its pairs, made as its README says."""
    folder = tmp_path_factory.mktemp("symbols")
    for name in ("symbols.yaml", "promotion.yaml"):
        (folder / name).write_bytes((EXAMPLE / name).read_bytes())
    command = [sys.executable, str(EXAMPLE / "prepare.py"), "--out", str(folder / "pairs.parquet")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_the_packages_give_enough_symbols_of_different_looks(prepared: Path) -> None:
    rows = [row.values for row in open_table(prepared / "pairs.parquet").rows() if isinstance(row, Row)]
    named = {row["query"]: row["positive_picture"] for row in rows if row["query"]}
    assert len(named) > 1_000
    assert {"rightwards arrow from bar", "not a subset of", "box drawings heavy down and right"} <= named.keys()
    drawn = Counter(drawing for drawings in named.values() for drawing in drawings)
    assert max(drawn.values()) == 1, "a drawing stands for one symbol alone"
    assert {Image.open(io.BytesIO(drawing)).size for drawing in drawn} == {(112, 112)}
    assert {row["entity"] for row in rows} == named.keys()


def test_the_file_speaks_of_every_step(prepared: Path) -> None:
    names = [step.name for step in pipeline_chain(load_pipeline(prepared / "symbols.yaml"))]
    assert names == ["corpus", "baselines", "validate", "train-1", "mine", "train-2", "evaluate", "report"]


class Symbols(Small):
    """A workspace for the example."""

    def command(self, *arguments: str) -> list[str]:
        return [str(GME), *arguments, "--config", str(self.workspace / "symbols.yaml"), "--workspace", self.place]

    @property
    def place(self) -> str:
        return str(self.workspace / "work")


@pytest.mark.slow
def test_the_model_ends_better_than_it_began(prepared: Path) -> None:
    """A model is registered, and its 95 % interval above the starter, query by query, lies above 0 on every task."""
    made = Symbols(prepared).json("pipeline")
    assert (made["passed"], made["model"], made["champion"]) == (True, "gme-symbols", "1")
    runs = prepared / "work" / "runs" / "pipelines" / "symbols"
    intervals = {}
    after = system_folder(runs / "evaluation", "model") / QUERIES
    for before in sorted((system_folder(runs / "baselines", "starter") / QUERIES).iterdir()):
        intervals[before.stem] = difference_interval(after / before.name, before)
    assert intervals.keys() == {"symbols-t2i", "symbols-i2t", "symbols-i2i"}
    assert all(low > 0 for low, _ in intervals.values()), intervals
    queries = open_table(after / "symbols-t2i.parquet").count()
    assert queries is not None
    assert queries >= FEWEST_QUERIES
