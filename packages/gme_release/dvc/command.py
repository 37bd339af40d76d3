"""DVC through its command line: one call, its errors as `FoundryError`.

The command line is DVC's stable interface; its Python classes are not. Knows no folder and no remote.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gme_data.errors import FoundryError

_SITE_CACHE = ".dvc/tmp/site"
"""Folder of DVC's site cache, below the workspace; its default lies outside of it."""
_MAX_ERRORS = 2
"""Error lines that are shown in full."""


def run_dvc(workspace: Path, *arguments: str) -> str:
    """Runs ``dvc <arguments>`` in `workspace`, after another DVC process has finished, and returns its standard output.

    Don't pass ``--quiet``: it also suppresses DVC's error messages.

    Raises:
        FoundryError: DVC exits non-zero. The message has DVC's error lines.
    """
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str((workspace / _SITE_CACHE).resolve()),
    }
    completed = subprocess.run(
        # The DVC of this environment, whatever PATH says.
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if completed.returncode != 0:
        raise FoundryError(
            f"`dvc {' '.join(arguments)}` failed: {_reason(completed.stderr or completed.stdout)}",
            hint="Nothing was recorded; mend the cause and run the same command again.",
            exit_code=1,
        )
    return completed.stdout


def _reason(output: str) -> str:
    """Returns the error lines of DVC's output, else its last three lines."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    if len(errors) > _MAX_ERRORS:  # DVC prints one line for each file, then a line that sums them up
        errors = [f"{errors[0]} ({len(errors) - _MAX_ERRORS} more)", errors[-1]]
    return "; ".join(errors or lines[-3:]) or "no message"
