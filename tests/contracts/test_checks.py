"""What `make check` runs finds what is planted; that the checkout itself is clean, `make check` says once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def test_the_import_contracts_can_break(tmp_path: Path) -> None:
    """A forbidden import is really found: the contracts are run against a copy with one planted."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("packages", "flows", "research", "pyproject.toml"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(copy / name)], check=True)
    planted = copy / "packages" / "gme_data" / "items.py"
    planted.write_text(planted.read_text() + "\nimport torch\n")
    done = subprocess.run(
        [str(BIN / "lint-imports"), "--no-cache"],
        cwd=copy,
        env={"PYTHONPATH": f"{copy / 'packages'}:{copy}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no torch in the packages that only move data BROKEN" in done.stdout
