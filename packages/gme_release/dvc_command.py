"""DVC through its command line: one call, its errors as `FoundryError`.

The command line is DVC's stable interface; its Python classes are not. Knows no folder and no remote.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gme_data.errors import FoundryError

_SITE_CACHE = ".dvc/tmp/site"  # DVC's own default lies outside the workspace
_SHOWN = 2


def run_dvc(workspace: Path, *arguments: str) -> str:
    """Standard output of ``dvc <arguments>``, run in `workspace`. Waits for another DVC process to finish.

    Not to be told to be ``--quiet``: then DVC keeps its errors to itself as well.

    Raises:
        FoundryError: DVC exits non-zero; carries its error lines.
    """
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str((workspace / _SITE_CACHE).resolve()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise FoundryError(
            f"`dvc {' '.join(arguments)}` failed: {_reason(done.stderr or done.stdout)}",
            hint="Nothing was recorded; mend the cause and run the same command again.",
            exit_code=1,
        )
    return done.stdout


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    if len(errors) > _SHOWN:  # one for each file, and the sum at the end
        errors = [f"{errors[0]} ({len(errors) - _SHOWN} more)", errors[-1]]
    return "; ".join(errors or lines[-3:]) or "no message"
