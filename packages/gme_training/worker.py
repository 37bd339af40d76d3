"""One rank: ``python -m gme_training.worker JOB``.

Dies with its parent, and leaves errors that are meant for the user where the parent finds them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

from gme_data.environment import settle
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.process import die_with_parent
from gme_training.launch import PARENT, RankError, error_file


def main(arguments: list[str]) -> int:
    """Train the job named by the only argument; the exit status."""
    if parent := os.environ.get(PARENT):
        die_with_parent(int(parent))
    settle()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    path = Path(arguments[0])
    scratch = path.parent
    from gme_training.room import explained

    try:
        with explained(scratch):
            from gme_training.engine import connect, disconnect
            from gme_training.job import read_job
            from gme_training.trainer import Trainer

            job = read_job(path)
            connect()
            Trainer(job).run()
            disconnect()
    except FoundryError as error:
        left = RankError(str(error), error.hint, error.exit_code)
        atomic_write(error_file(scratch, int(os.environ["RANK"])), json.dumps(asdict(left)).encode())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
