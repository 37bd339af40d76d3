"""Forks ranks, which need not import what all of them import: a line in names a run, a line out has its exit codes."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from typing import Any


def start(module: str, arguments: list[str], environment: dict[str, str], log: str) -> int:
    """Be a new process as ``python -m module arguments`` would be; for the server its number."""
    if child := os.fork():
        return child
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for standard, handle in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
            os.dup2(handle, standard)
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as wish:
        code = wish.code if isinstance(wish.code, int) else int(wish.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(children: list[int], seconds: float) -> list[int]:
    """Exit codes as subprocess gives them; who takes longer is killed."""
    deadline, codes = time.monotonic() + seconds, dict[int, int]()
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return [codes[child] for child in children]


def serve() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # who prints, as DeepSpeed does when it is imported, does not answer
    from gme_training import trainer  # noqa: F401 - for those who are forked
    from gme_training.engine import import_deepspeed

    import_deepspeed()
    for line in sys.stdin:
        run: dict[str, Any] = json.loads(line)
        codes = wait([start(**one) for one in run["starts"]], run["seconds"])
        replies.write(json.dumps(codes) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve()
