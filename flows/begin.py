"""What every flow does first: says which process stands behind its run, and refuses a run that brings job variables.

With Prefect's own template of a pool, job variables are the command, environment and folder of the process that a
worker starts: whoever may ask for a run would run anything. Our pools have no such variables (``flows/pool.json``).
"""

from __future__ import annotations

import logging
import os
import socket

import psutil
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from gme_data.environment import set_default_env
from gme_data.errors import FoundryError

PROCESS = "gme.process"
_LOGGER = logging.getLogger(__name__)


def begin_run() -> None:
    """Begin a flow that a deployment runs.

    Raises:
        FoundryError: Who asked for the run wants to choose its command, environment or folder.
    """
    set_default_env()
    sign_run()
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is not None and run.job_variables:
        raise FoundryError(
            f"The run brings job variables ({', '.join(sorted(run.job_variables))}). It may choose parameters alone.",
            hint="Leave job_variables away. What a worker starts with is set where the worker is started.",
        )


def sign() -> str:
    """Names this process for `sweep`: machine, process id, and when it began (ids are used again)."""
    return f"{_machine()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def sign_run() -> None:
    """Note in Prefect which process stands behind the present flow run. Best effort: without it only time tells."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(context.flow_run.id, {PROCESS: sign()})
    except Exception:
        _LOGGER.warning("The process of this run could not be noted in Prefect.", exc_info=True)


def is_gone(process: str) -> bool | None:
    """Whether a signed process has ended; None if it is of another machine, or this is no sign."""
    try:
        machine, pid, began = process.rsplit(":", 2)
        if machine != _machine():
            return None
        return bool(abs(psutil.Process(int(pid)).create_time() - float(began)) > 1)
    except psutil.NoSuchProcess:
        return True
    except (ValueError, OverflowError):
        return None


def _machine() -> str:
    return socket.gethostname()
