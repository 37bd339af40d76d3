"""A step in a process of its own: its memory goes when it ends, and two steps can use two cores.

The process dies with its parent. Knows nothing of what the step does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from gme_data.environment import set_default_env
from gme_data.errors import FoundryError
from gme_data.process import die_with_parent
from gme_data.progress import listen
from gme_data.redact import redact_error
from gme_data.steps import Outcome, PlannedStep, execute

_RUNNING: set[BaseProcess] = set()


def end_running() -> None:
    """Kill the steps that still run. Who waits for one in another thread gets the error of `run_apart` at once."""
    for process in tuple(_RUNNING):
        process.kill()


def run_apart(planned: PlannedStep, workspace: Path, on_line: Callable[[str], None] = lambda _: None) -> Outcome:
    """`gme_data.steps.execute` in a new process; `on_line` is called with every line of its progress.

    Raises:
        FoundryError: What the step raises, or that its process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of torch and Prefect
    result: Outcome | Exception | str
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, os.getpid(), planned, workspace))
    process.start()
    _RUNNING.add(process)
    sender.close()  # or the end of the child would not be seen
    try:
        while isinstance(result := receiver.recv(), str):
            on_line(result)
        process.join()  # it has nothing left to do but to tidy up
    except EOFError:
        process.join()
        result = FoundryError(
            f"The process of the step '{planned.step.name}' ended with code {process.exitcode}.",
            hint="If the machine ran out of memory, free some; then run the same command again.",
            exit_code=1,
        )
    finally:
        process.kill()  # where we were interrupted, it must not go on behind our back
        process.join()
        _RUNNING.discard(process)
    if isinstance(result, Outcome):
        return result
    raise result


def _work(sender: Connection, parent: int, planned: PlannedStep, workspace: Path) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it
    set_default_env()
    lock = threading.Lock()  # threads tell of their progress too

    def send(message: Outcome | Exception | str) -> None:
        with lock:
            sender.send(message)

    listen(send)
    try:
        send(execute(planned, workspace))
    except Exception as error:
        send(_told(error))


def _told(error: Exception) -> Exception:
    """An error that can cross to the parent, its traceback kept as a note."""
    import traceback

    error.add_note("".join(traceback.format_exception(error)))
    redact_error(error)  # Prefect keeps what it is told
    return error
