"""One rank: ``python -m gme_training.worker JOB``.

Dies with its parent, and leaves errors that are meant for the user where the parent finds them.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from pathlib import Path

from gme_data.environment import settle
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_training.launch import PARENT, error_file

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent is gone, however that happened (only Linux can)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get(PARENT)
    if parent and os.getppid() != int(parent):
        os._exit(1)  # the parent died before the request was in place


def main(arguments: list[str]) -> int:
    """Train the job named by the only argument; the exit status."""
    die_with_parent()
    settle()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    from gme_training.engine import connect
    from gme_training.job import read_job
    from gme_training.trainer import Trainer

    job = read_job(Path(arguments[0]))
    try:
        connect()
        Trainer(job).run()
    except FoundryError as error:
        left = {"message": str(error), "hint": error.hint, "exit_code": error.exit_code}
        atomic_write(error_file(job.staging, int(os.environ["RANK"])), json.dumps(left).encode())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
