"""A study trains variants with seeds beside each other on shared data, and goes on where it was."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.small import CONFIG, GME, Small

from flows.study import StudyRun, study_table

STUDY = """
name: two
base: {base}
seeds: [5, 6]
variants:
  base: []
  short: [stage_2.phases.0.steps=1, "evaluation.scoring.tasks=[flag-i2i]"]
"""


def gme_study(file: Path, workspace: Path) -> subprocess.CompletedProcess[str]:
    command = [str(GME), "study", str(file), "--workspace", str(workspace)]
    overrides = ["--set", "seeds=[5]", "--set", 'variants={"short": ["stage_1.phases.1.steps=1"]}']
    return subprocess.run([*command, *overrides], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.xdist_group("pipeline")
def test_a_study_writes_mean_and_spread_and_reuses_what_is_done(finished: tuple[Small, dict[str, Any]], tmp_path: Path):
    small = finished[0].copy(tmp_path / "workspace", "data")
    file = tmp_path / "two.yaml"
    file.write_text(STUDY.format(base=CONFIG), encoding="utf-8")
    done = gme_study(file, small.workspace)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (small.workspace / "runs" / "studies" / "two" / "table.md").read_text()
    assert text.strip() == done.stdout.strip()
    assert re.search(r"\| I->I \| flag-i2i \| \d\.\d{3} ± 0\.000 \|", text)
    again = gme_study(file, small.workspace)
    assert again.stdout == done.stdout
    assert "files verified" in again.stderr
    assert "✓" not in again.stderr


def test_the_table_has_mean_and_spread_of_each_variant() -> None:
    def scored(variant: str, seed: int, hits: float, seconds: float) -> StudyRun:
        task = SimpleNamespace(task_type="I->I", scores={"hit_rate_at_10": hits})
        return StudyRun(variant, seed, {"flag-i2i": task}, seconds)  # type: ignore[dict-item] # what the table reads of it

    runs = [
        scored("base", 5, 0.5, 60),
        scored("base", 6, 0.7, 180),
        scored("short", 5, 0.25, 30),
        scored("short", 6, 0.25, 30),
    ]
    assert "| I->I | flag-i2i | 0.600 ± 0.141 | 0.250 ± 0.000 |" in study_table(runs)
    assert "| | minutes of training and evaluation | 2.0 ± 1.4 | 0.5 ± 0.0 |" in study_table(runs)


def test_a_bad_variant_is_told_before_anything_runs(tmp_path: Path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        STUDY.format(base=CONFIG).replace("stage_2.phases.0.steps", "stage_2.phases.0.stepz"), encoding="utf-8"
    )
    done = subprocess.run(
        [str(GME), "study", str(file), "--workspace", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "steps" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
