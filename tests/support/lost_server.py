"""Run as a program: a pipeline whose chain is one small task, and whose Prefect server is killed meanwhile.

Arguments: the workspace, and what happens: ``lost`` (killed for good), ``killed`` (killed once), ``died`` (the whole
program is killed), ``leaks`` (a step fails, and says its address with the password), ``well``.
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
from urllib.parse import urlsplit

import psutil
from support.intruder import EVIL, REBOUND, listening, send

from flows import server
from gme_data import redact

CANARY = "c4nary0fasecret"
LEAK = f"postgresql+asyncpg://me:{CANARY}@db/prefect"


def end_server() -> None:
    for child in psutil.Process().children():
        child.kill()
    time.sleep(1)  # whoever started it is to see its end, not we


def assert_guarded(url: str) -> None:
    """The server of a run is the only thing that listens, and answers nobody without the secret."""
    assert listening() == {("127.0.0.1", urlsplit(url).port)}, listening()
    for headers in ({"Origin": EVIL}, {"Origin": EVIL, "Host": REBOUND}, {}):
        reply = send(url, "POST", "/api/flow_runs/filter", {}, **headers)
        assert (reply.status, reply.lets_pages_read) == (401, False), reply


def main(workspace: Path, what: str) -> None:
    redact.install_redaction()  # as `gme` does
    logging.basicConfig(level=logging.WARNING)
    if what == "lost":
        server._MOST_RESTARTS = 0
    with server.prefect_workspace(workspace):
        from prefect import task
        from support.small import CONFIG

        from flows import pipeline
        from flows.config import load_pipeline

        @task(name="work")
        def work() -> Any:
            if what == "well":
                assert_guarded(os.environ["PREFECT_API_URL"].removesuffix("/api"))
            if what in ("lost", "killed"):
                end_server()
            if what == "died":
                time.sleep(3)  # until Prefect has sent that the task runs
                os.kill(os.getpid(), signal.SIGKILL)
            return pipeline.PipelineResult({}, SimpleNamespace(), 7)

        def leak(*_: object) -> None:
            logging.getLogger("alembic").warning("no route to %s", LEAK)
            raise ValueError(f"can't connect to {LEAK}") from OSError(LEAK)

        pipeline._run_chain = lambda *_, **__: work()  # the real chain takes minutes
        if what == "leaks":
            pipeline.record = leak
            pipeline._run_chain = lambda config, chain, workspace, **_: pipeline._record(config, chain, {}, workspace)
        print(pipeline.run_pipeline(load_pipeline(CONFIG), workspace).seconds)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
