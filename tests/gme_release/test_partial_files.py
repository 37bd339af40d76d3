"""What killed processes left half written goes; what living ones write, and what is whole, stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gme_release.partial_files import remove_partial_files


def test_only_what_a_dead_process_left(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive, hour_ago = ended.pid, os.getpid(), 1e9
    names = {
        ".data.dvc.{}-1.part": True,
        ".dvc/.config.local.{}-99.part": True,
        "dist/.part-{}-abc_12": True,
        "runs/locks/.pointers-before.json.{}-1.part": True,
        "runs/mlflow/.mlflow.db.{}.part": True,
        "runs/models/.0123456789abcdef.{}.part": True,
        "runs/tracking/one/.sent.{}-1.part": True,
        "runs/locks/dvc": False,
        "runs/models/0123456789abcdef": False,
        "data/.{}.part": False,
        ".part": False,
    }
    for name in names:
        for number in (dead, alive):
            path = tmp_path / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            if "models/." in name or "dist" in name:
                path.mkdir(exist_ok=True)
                (path / "half").write_text("x")
                os.utime(path / "half", (hour_ago, hour_ago))
            else:
                path.write_text("x")
            os.utime(path, (hour_ago, hour_ago))
    fresh = tmp_path / f"runs/mlflow/.fresh.{dead}.part"
    fresh.write_text("of a container that has other numbers")
    removed = {path.relative_to(tmp_path).as_posix() for path in remove_partial_files(tmp_path)}
    assert removed == {name.format(dead) for name, goes in names.items() if goes}
    assert not any((tmp_path / name).exists() for name in removed)
    assert all((tmp_path / name.format(alive)).exists() for name in names)
    assert fresh.exists()
    assert remove_partial_files(tmp_path / "nowhere") == []
