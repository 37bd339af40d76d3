"""Run as a program: a pipeline whose chain is one small task, and whose Prefect server is killed meanwhile.

Arguments: the workspace, and what happens: ``lost`` (killed for good), ``killed`` (killed once), ``died`` (the whole
program is killed), ``well``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from flows import server


def end_server() -> None:
    for child in psutil.Process().children():
        child.kill()
    time.sleep(1)  # whoever started it is to see its end, not we


def main(workspace: Path, what: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    if what == "lost":
        server._MOST_RESTARTS = 0
    with server.local_records(workspace):
        from prefect import task
        from support.small import CONFIG

        from flows import pipeline
        from flows.config import load_pipeline

        @task(name="work")
        def work() -> Any:
            if what in ("lost", "killed"):
                end_server()
            if what == "died":
                time.sleep(3)  # until Prefect has sent that the task runs
                os.kill(os.getpid(), signal.SIGKILL)
            return pipeline.PipelineResult({}, SimpleNamespace(), 7)

        pipeline._run_chain = lambda config, workspace: work()  # the real chain takes minutes
        print(pipeline.run_pipeline(load_pipeline(CONFIG), workspace).seconds)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
