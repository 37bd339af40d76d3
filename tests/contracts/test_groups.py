"""Tests of a file run in one worker, so what they share is made once: the rule of `tests/conftest.py`, seen at work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
TESTS = """
import os, pathlib, pytest
@pytest.mark.parametrize("number", range(12))
def test_it(number):
    with open(pathlib.Path(__file__).with_suffix(".workers"), "a") as seen:
        seen.write(os.environ["PYTEST_XDIST_WORKER"] + " ")
"""


def test_the_tests_of_a_file_share_a_worker(tmp_path: Path) -> None:
    shutil.copy(CONFTEST, tmp_path)
    for name in ("test_one.py", "test_other.py", "test_third.py"):
        (tmp_path / name).write_text(TESTS)
    options = [
        "-q",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "--no-loadscope-reorder",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
    ]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    workers = [path.read_text().split() for path in sorted(tmp_path.glob("*.workers"))]
    assert [len(seen) for seen in workers] == [12, 12, 12]
    assert [len(set(seen)) for seen in workers] == [1, 1, 1]
