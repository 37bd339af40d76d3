"""What every flow does first: labels its run with its process, and refuses a run that has job variables.

In Prefect's own template of a pool, job variables are the command, environment and folder of the process that a worker
starts, so whoever may create a run could run anything. Our pools have no such variables (``flows/pool.json``).
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

PROCESS_LABEL = "gme.process"
"""Label of a flow run: the process that works at it, see `process_label`."""
_LOGGER = logging.getLogger(__name__)


def start_flow() -> None:
    """Starts a flow that a deployment runs.

    Raises:
        FoundryError: The run has job variables, which would choose its command, environment or folder.
    """
    set_default_env()
    label_run()
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is not None and run.job_variables:
        raise FoundryError(
            f"The run brings job variables ({', '.join(sorted(run.job_variables))}). It may choose parameters alone.",
            hint="Leave job_variables away. What a worker starts with is set where the worker is started.",
        )


def process_label() -> str:
    """Returns machine, process id and start time of this process; the start time, because ids are used again."""
    return f"{_machine()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def label_run() -> None:
    """Labels the present flow run with this process. An error is logged: without the label, only time tells a crash."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(context.flow_run.id, {PROCESS_LABEL: process_label()})
    except Exception:
        _LOGGER.warning("The process of this run could not be noted in Prefect.", exc_info=True)


def has_ended(process: str) -> bool | None:
    """Returns whether the process of a label has ended; None if it is of another machine, or the label is malformed."""
    try:
        machine, pid, began = process.rsplit(":", 2)
        if machine != _machine():
            return None
        # Another process may have the id now; a second of difference is rounding.
        return bool(abs(psutil.Process(int(pid)).create_time() - float(began)) > 1)
    except psutil.NoSuchProcess:
        return True
    except (ValueError, OverflowError):
        return None


def _machine() -> str:
    return socket.gethostname()
