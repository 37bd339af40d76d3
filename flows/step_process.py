"""Runs a step in a process of its own: its memory is freed when it ends, and two steps can use two cores.

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


def kill_running_steps() -> None:
    """Kills the steps that still run; a thread that waits for one in `run_in_process` gets its error at once."""
    for process in tuple(_RUNNING):
        process.kill()


def run_in_process(planned: PlannedStep, workspace: Path, on_line: Callable[[str], None] = lambda _: None) -> Outcome:
    """Runs `gme_data.steps.execute` in a new process and returns the outcome.

    Args:
        planned: The step.
        workspace: The workspace.
        on_line: Is called with every line of the step's progress.

    Raises:
        FoundryError: The step raises it, or its process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of torch and Prefect hold
    result: Outcome | Exception | str
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, os.getpid(), planned, workspace))
    process.start()
    _RUNNING.add(process)
    sender.close()  # while the parent holds this end too, `recv` would not raise EOFError when the child ends
    try:
        while isinstance(result := receiver.recv(), str):
            on_line(result)
        process.join()  # it only has to exit
    except EOFError:
        process.join()
        result = FoundryError(
            f"The process of the step '{planned.step.name}' ended with code {process.exitcode}.",
            hint="If the machine ran out of memory, free some; then run the same command again.",
            exit_code=1,
        )
    finally:
        process.kill()  # after an interrupt the step must not go on
        process.join()
        _RUNNING.discard(process)
    if isinstance(result, Outcome):
        return result
    raise result


def _work(sender: Connection, parent: int, planned: PlannedStep, workspace: Path) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent handles it
    set_default_env()
    lock = threading.Lock()  # threads of the step report progress too

    def send(message: Outcome | Exception | str) -> None:
        with lock:
            sender.send(message)

    listen(send)
    try:
        send(execute(planned, workspace))
    except Exception as error:
        send(_picklable(error))


def _picklable(error: Exception) -> Exception:
    """Returns the error with its traceback as a note, because pickling drops the traceback itself."""
    import traceback

    error.add_note("".join(traceback.format_exception(error)))
    redact_error(error)  # Prefect stores the message
    return error
