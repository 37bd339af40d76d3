"""Rows run alone, are recorded with what they measured, and are not run again; the page shows them by part and row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hardening.plugin import ROOT
from hardening.report import latest, render

from gme_data.events import read_events

ROWS = """
import pytest

@pytest.mark.hardening("faults", "F2", "a | b")
def test_holds(record_property):
    record_property("lost", "nothing")

@pytest.mark.slow
@pytest.mark.hardening("faults", "F10", "slow rows run as well")
def test_falls():
    assert 0

@pytest.mark.hardening("attacks", "A1", "of another part")
def test_other():
    assert 0

def test_no_row():
    assert 0
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "hardening.plugin",
        "--part",
        "faults",
        "-c",
        ROOT / "pyproject.toml",
    ]
    return subprocess.run(
        [*command, "--results", folder / "results.jsonl", "--noconftest", folder / "test_rows.py"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_rows_are_recorded_resumed_and_shown(tmp_path: Path) -> None:
    (tmp_path / "test_rows.py").write_text(ROWS)
    first = run(tmp_path)
    assert "1 failed, 1 passed, 2 deselected" in first.stdout, first.stdout + first.stderr
    again = run(tmp_path)
    assert "1 rows of 'faults' passed before" in again.stdout
    assert "1 failed, 3 deselected" in again.stdout
    events = list(read_events(tmp_path / "results.jsonl", "row"))
    assert [event["outcome"] for event in events] == ["passed", "failed", "failed"]
    page = render(latest(events))
    assert page.index("| F2 | a / b | 1 | holds |") < page.index("| F10 | slow rows run as well | 1 | **fell** |")
    assert "lost: nothing" in page
    assert "seed 0, sample" in page
